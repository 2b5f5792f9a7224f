"""`fledge verify`: a finished export, proven again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.commands.export import probe_of, said_of_behaviour, said_of_reader, source_of
from fledge.commands.open_adapter import open_tuned
from fledge.commands.open_run import check_base
from fledge.commands.opening import Opening
from fledge.commands.progress import Say, say_nothing
from fledge.errors import ProofError
from fledge.exporting.outside import ask_outside
from fledge.exporting.readers import check_pythons, prove_all_in
from fledge.exporting.sealed import read_sealed
from fledge.exporting.targets.draft import Order
from fledge.exporting.targets.table import TARGETS


@dataclass(frozen=True, slots=True)
class Verified:
    """An export that is still what was trained."""

    export: Path
    kind: str
    files: int
    """How many files have the bytes that its certificate names."""
    checks: dict[str, Any]
    """What this environment has read, as a certificate has it."""
    readers: list[dict[str, Any]]
    """What each other environment has read."""
    notices: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        found: dict[str, Any] = {"export": str(self.export), "kind": self.kind, "files": self.files}
        found |= {"checks": self.checks, "readers": self.readers}
        return found | ({"notices": list(self.notices)} if self.notices else {})

    def findings(self) -> list[str]:
        """What was compared, a line each, for a person to read."""
        files = f"{self.files} files have the bytes that the certificate names"
        return [files, *said_of_behaviour(self.checks), *map(said_of_reader, self.readers)]


def verify(
    export: Path | str,
    run: Path | str,
    *,
    opening: Opening | None = None,
    prove_in: Sequence[str] = (),
    say: Say = say_nothing,
) -> Verified:
    """Prove a finished export again: its files against its certificate, and what it does in a fresh process, and in the
    Pythons of other environments that `prove_in` names, against what the run's model does.

    The adapter that is compared with is the one that the certificate names, the last or the best. Raises ProofError
    where a file was changed, where the run's adapter is another one, or where a reader finds something else than was
    trained; RunError where the run cannot be opened, or a Python cannot be used.
    """
    folder = Path(export).resolve()
    sealed = read_sealed(folder)
    kind = str(sealed.certificate["kind"])
    pythons = check_pythons(prove_in, kind=kind)
    opening = opening or Opening()
    which = sealed.adapter.get("which", "last")
    opened = open_tuned(run, Opening(which, opening.trust_remote_code, opening.base_path, opening.recipe))
    check_base(opened)
    if opened.adapter_sha256 != sealed.adapter.get("sha256"):
        what = "this export was made of another adapter than this run's"
        raise ProofError(what, where=str(folder), cure="give the run that it was made of, or export this run")
    source, order = source_of(opened, which, say=say), Order(dtype=str(sealed.certificate["dtype"]))
    draft = TARGETS[kind].again(source, folder, probe=probe_of(opened), order=order)
    say("probing: a fresh process without Fledge loads the export, and the two are compared")
    checks = draft.prove(folder, ask_outside(draft.cases))
    readers = prove_all_in(draft, folder, pythons=pythons, say=say)
    return Verified(folder, kind, len(sealed.sha256), checks, readers, opened.notices)
