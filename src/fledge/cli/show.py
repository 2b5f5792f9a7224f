"""How results and problems are printed: words for people, one JSON object for machines."""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from fledge.errors import FledgeError, StoppedBySignal
from fledge.units import for_terminal

_WIDTH_OF_NAMES = 24
_SECONDS_OF_SILENCE = 30.0
_SIGNS = ("[[", "]]")
"""Around a marked piece of text where there are no colours. They are no part of the text."""


def is_first_rank() -> bool:
    """Whether this process speaks for the run: the only one, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def show_problems(error: FledgeError, *, as_json: bool) -> None:
    """Print every problem of an error to stderr; with `as_json` the same as an object on stdout."""
    if isinstance(error, StoppedBySignal) and not is_first_rank():
        return
    speaker = "fledge" if is_first_rank() else f"fledge rank {os.environ['RANK']}"
    for problem in error.problems:
        echo(f"{speaker}: {problem}", err=True)
    if len(error.problems) > 1:
        echo(f"{speaker}: {len(error.problems)} problems", err=True)
    if as_json and is_first_rank():
        problems = [dataclasses.asdict(problem) for problem in error.problems]
        show_json({"error": type(error).__name__, "problems": problems})


def echo(text: object = "", *, nl: bool = True, err: bool = False) -> None:
    """Print to stdout, or to stderr. All that Fledge prints goes through here.

    On a terminal control characters are shown, not sent. What the stream's encoding lacks is written as an escape:
    `typer.echo` would write UTF-8 into a stream that is not.
    """
    stream, line = sys.stderr if err else sys.stdout, f"{text}\n" if nl else str(text)
    stream.write(for_terminal(line) if stream.isatty() else line)
    stream.flush()


def say(line: str) -> None:
    """Print what is being done, on stderr, so that nobody waits in front of an empty screen."""
    echo(line, err=True)


def show_marks(what: str) -> None:
    """Print a line that explains the marks of `show_marked`: `what` is marked."""
    echo(f"{what} is green" if sys.stdout.isatty() else f"{what} stands between {' and '.join(_SIGNS)}")


def show_marked(pieces: Iterable[tuple[str, bool]]) -> None:
    """Print a text piece by piece. A marked piece is green on a terminal, and stands between [[ and ]] elsewhere; call
    `show_marks` before the first text.
    """
    green, plain = ("\x1b[1;32m", "\x1b[0m") if sys.stdout.isatty() else _SIGNS
    for text, is_marked in pieces:
        clean = for_terminal(text)
        sys.stdout.write(f"{green}{clean}{plain}" if is_marked else clean)
    sys.stdout.write("\n")
    sys.stdout.flush()


def show_notices(notices: Iterable[str]) -> None:
    """Print what a person should know, a line each, on stderr."""
    for text in notices:
        echo(f"note: {text}", err=True)


def show_json(value: Any) -> None:
    """Print one JSON object, in ASCII where stdout is not UTF-8."""
    text = json.dumps(plain(value), ensure_ascii=not _is_utf8(sys.stdout))
    # control characters beyond ASCII, which JSON leaves as they are
    echo("".join(f"\\u{ord(sign):04x}" if unicodedata.category(sign) == "Cc" else sign for sign in text))


def _is_utf8(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")


def show_pairs(pairs: dict[str, str]) -> None:
    """Print names and values in two columns."""
    width = min(max(map(len, pairs), default=0), _WIDTH_OF_NAMES)
    for name, value in pairs.items():
        echo(f"{name:<{width}}  {value}".rstrip())


def show_beside(left: tuple[str, str], right: tuple[str, str]) -> None:
    """Print two texts side by side, each under its title, as wide as the terminal allows."""
    width = max(20, (min(shutil.get_terminal_size().columns, 120) - 3) // 2)
    columns = [[title, *_wrapped(text, width)] for title, text in (left, right)]
    for one, other in itertools.zip_longest(*columns, fillvalue=""):
        echo(f"{one:<{width}} | {other}".rstrip())


@contextlib.contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be told how much is done, and of how much: a bar on stderr where that is a terminal, a line now and
    then elsewhere. The bar is gone at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(stderr=True, highlight=False)
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn()
    is_live = screen.is_terminal and not screen.is_dumb_terminal
    bar = Progress(*columns, console=screen, transient=True)
    task, last_line = bar.add_task(what, total=None), time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last_line
        if is_live:
            bar.start()
            bar.update(task, completed=done, total=total)
        elif time.monotonic() - last_line > _SECONDS_OF_SILENCE:
            last_line = time.monotonic()
            echo(f"{what}  {done:,} of {total:,} {unit}", err=True)

    try:
        yield tell
    finally:
        if is_live:
            bar.stop()


def as_points(mean: float, interval: tuple[float, float], *, is_difference: bool = False) -> str:
    """A fraction (0 to 1) and its interval as papers print them: times 100, with one decimal."""
    low, high = interval
    points = f"{100 * mean:+.1f}" if is_difference else f"{100 * mean:.1f}"
    return f"{points} [{100 * low:.1f}, {100 * high:.1f}]"


def _wrapped(text: str, width: int) -> list[str]:
    return [part for line in for_terminal(text).splitlines() for part in textwrap.wrap(line, width) or [""]] or [
        "(nothing)"
    ]


def plain(value: Any) -> Any:
    """A result value as JSON has it: dataclasses as objects, paths as text, numbers that are not finite as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value
