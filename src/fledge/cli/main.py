"""The entry of `fledge`: finds the verb, imports it alone, and turns every error into words and an exit code."""

import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import typer
from typer.exceptions import TyperException

from fledge.cli.show import echo, is_first_rank, show_notices, show_problems
from fledge.cli.streams import check_arguments, prepare_streams
from fledge.errors import FledgeError, Problem
from fledge.places import settle_home
from fledge.release import VERSION

VERBS = {
    "train": ("train", "Train the adapter that a recipe describes; go on where its run folder stopped."),
    "evaluate": ("evaluate", "Measure a run: loss and perplexity, base beside tuned."),
    "generate": ("generate", "Answer one prompt with a run's adapter."),
    "chat": ("chat", "Talk with a run's adapter."),
    "export": ("export", "Write a run's adapter, or base and adapter merged, checked against what was trained."),
    "verify": ("verify", "Prove a finished export again, in this environment and in others."),
    "push": ("push", "Send a run's adapter, or base and adapter merged, to a model hub: proven, with a model card."),
    "init": ("init", "Write a commented recipe to start from."),
    "import": ("import_recipe", "Translate another tool's configuration into a recipe."),
    "schema": ("schema", "Print the recipe's JSON Schema, for editors."),
    "doctor": ("doctor", "Say what is on this machine and what it can do."),
}
"""Each verb's module in this folder and its line in `fledge --help`."""

BUG_EXIT_CODE = 70
INTERRUPTED_EXIT_CODE = 130
_TRACEBACK_SWITCH = "FLEDGE_TRACEBACK"
_NEED_NO_CACHE = ("schema", "import")
_UNIX_ALONE = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty")
"""Modules of Python that Windows lacks."""
_UTF8 = "set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
_REFUSALS = {
    errno.EACCES: ("this user may not read or write it", "give this user the right to it, or name another place"),
    errno.EPERM: ("the system does not allow it", "give this user the right to it, or name another place"),
    errno.EMFILE: ("too many files are open", "raise the limit, `ulimit -n 4096`, and run the same command again"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "choose a shorter one"),
}


def main() -> None:
    """Run `fledge` with the process's arguments and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `fledge` with `arguments`; returns the exit code, having printed whatever is to be said.

    Nothing asked is answered with the help.
    """
    arguments = arguments or ["--help"]
    as_json = "--json" in arguments
    prepare_streams()
    try:
        check_arguments(arguments)
        _settle(arguments)
        code = build_app(arguments)(args=list(arguments), prog_name="fledge", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except FledgeError as error:
        show_problems(error, as_json=as_json)
        _say_what_the_locale_hides(error)
        return error.exit_code
    except TyperException as error:
        message = error.format_message()
        if message:
            cure = _cure_of_usage(message, arguments)
            show_problems(FledgeError(message, where="command line", cure=cure), as_json=as_json)
        return 2
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        # the reader of our output went away; nothing more can be said to it, not even when Python exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        lack = _lack_of_the_machine(error, is_training=_verb_of(arguments) == "train")
        if lack is not None:
            show_problems(lack, as_json=as_json)
            return 1
        _show_bug(error, as_json=as_json)
        return BUG_EXIT_CODE


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The application with the verb that `arguments` ask for; the others are names and lines of help only."""
    app = typer.Typer(
        name="fledge",
        help="LoRA fine-tuning from one recipe, proven.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_top)
    asked = _verb_of(arguments)
    for verb, (module, line) in VERBS.items():
        command = import_module(f"fledge.cli.{module}").run if verb == asked else _not_asked_for
        app.command(verb, help=line, short_help=line)(command)
    return app


def _settle(arguments: Sequence[str]) -> None:
    """A home folder where the user has none, said once; what only prints needs none."""
    if _verb_of(arguments) in (None, *_NEED_NO_CACHE) or not {"-h", "--help"}.isdisjoint(arguments):
        return
    note = settle_home()
    if note is not None and is_first_rank():
        show_notices([note])


def _say_what_the_locale_hides(error: FledgeError) -> None:
    """Where names are not UTF-8, a name that is there may not be found: say how it is."""
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and not all(str(problem).isascii() for problem in error.problems):
        show_notices([f"names of files are {encoding} in this locale, so others are not found; {_UTF8}"])


def _top(
    is_version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if is_version:
        echo(f"fledge {VERSION}")
        raise typer.Exit


def _not_asked_for() -> None:
    raise AssertionError("the verb that is asked for is imported before the application is built")


def _verb_of(arguments: Sequence[str]) -> str | None:
    return next((argument for argument in arguments if argument in VERBS), None)


def _cure_of_usage(message: str, arguments: Sequence[str]) -> str:
    """What to do about arguments that typer refuses; an option of the recipe is written without dashes."""
    verb = _verb_of(arguments)
    unknown = re.search(r"No such option:? '?--?([A-Za-z_][\w.-]*)", message)
    if verb == "train" and unknown:
        return f"write {unknown[1].replace('-', '_')}=VALUE, without dashes; `fledge train --help` lists the options"
    if verb is None and arguments[0].lower().endswith((".yaml", ".yml", ".json")):
        return f"write `fledge train {shlex.quote(arguments[0])}`"
    return f"`fledge {verb or ''}".rstrip() + " --help` says what there is"


def _lack_of_the_machine(error: Exception, *, is_training: bool) -> FledgeError | None:
    """Disk or memory that ran out, as an error that says what to do; None for everything else."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        cure = "free some space, or choose another output.dir; a run goes on from its last checkpoint"
        return FledgeError(f"cannot be written: {error.strerror}", where=str(error.filename or "disk"), cure=cure)
    if isinstance(error, OSError) and error.filename is not None and error.errno in _REFUSALS:
        what, cure = _REFUSALS[error.errno]
        return FledgeError(what, where=str(error.filename), cure=cure)
    if isinstance(error, ModuleNotFoundError) and error.name in _UNIX_ALONE:
        what = f"this needs {error.name}, a part of Python that this system lacks"
        return FledgeError(what, cure="run it in WSL, the Linux that comes with Windows")
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding() != "utf-8":
        return FledgeError(f"this locale has no name for {error.object[:80]!r}", where=error.encoding, cure=_UTF8)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        cure = "close other programs, or lower --max-new-tokens and the like; a base can be held in less memory"
        if is_training:
            cure = (
                "lower train.micro_batch_tokens, or set train.gradient_checkpointing: true, neither of which changes "
                "the result; a run that has begun keeps its settings, so choose another output.dir too"
            )
        return FledgeError("there is not enough memory", cure=cure)
    return None


def _show_bug(error: Exception, *, as_json: bool) -> None:
    lines = traceback.format_exception(error)
    if os.environ.get(_TRACEBACK_SWITCH):
        echo("".join(lines), err=True)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    problem = Problem(
        f"this is a bug in Fledge: {type(error).__name__}: {error}",
        f"{frame.filename}:{frame.lineno}",
        f"please report it; {_TRACEBACK_SWITCH}=1 prints the whole traceback",
    )
    bug = FledgeError(problem.what, where=problem.where, cure=problem.cure)
    show_problems(bug, as_json=as_json)


if __name__ == "__main__":
    main()
