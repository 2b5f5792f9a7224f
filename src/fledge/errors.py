"""What a user can mend: every error says what is wrong, where, and how to cure it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `where` is a file:line, a row or a key; `cure` is what to do about it."""

    what: str
    where: str = ""
    cure: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n    {self.cure}" if self.cure else head


class FledgeError(Exception):
    """An error that the person at the keyboard can mend. The command line prints it and exits with `exit_code`."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", cure: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(what, where, cure),)
        super().__init__(str(self.problems[0]))


class RecipeError(FledgeError):
    """Everything that is wrong with a recipe, told at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("the recipe is not valid")
        self.problems = tuple(problems)
        self.args = ("\n".join(str(problem) for problem in self.problems),)


class DataError(FledgeError):
    """A source cannot be read, a row is not what its format says, or nothing is left to train on."""


class ModelError(FledgeError):
    """A base, a tokenizer or an adapter cannot be loaded or does not fit the recipe."""


class NotReadable(ModelError):
    """A model has a part that the engine has no value for; the library's own modules compute it."""


class KernelError(FledgeError):
    """Kernels cannot be compiled or loaded on this machine; torch's own operations compute instead."""


class RunError(FledgeError):
    """A run folder is missing, locked, unwritable, or belongs to another recipe."""


class ExtraError(FledgeError):
    """An optional part of Fledge is asked for and not installed."""


class TrainingError(FledgeError):
    """Training stopped because going on would have been wrong: not finite, or an adapter without a gradient."""

    exit_code = 1


class ProofError(FledgeError):
    """A check that guards a result said no: an export differs from what was trained."""

    exit_code = 1


class StoppedBySignal(FledgeError):
    """A signal ended the run after its step, with everything saved; the same command goes on."""

    def __init__(self, signal_number: int, *, step: int, run: str) -> None:
        super().__init__(
            f"stopped by a signal after step {step}, everything saved", cure=f"run the same command to go on: {run}"
        )
        self.exit_code = 128 + signal_number
