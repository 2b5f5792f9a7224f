"""Markdown in which a value stays text: no name of a file or a data set can break a table, a fence or a page."""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&!{}$])")
_LONGEST_CELL = 160


def text(value: object, *, most: int = _LONGEST_CELL) -> str:
    """A value on one line, with what Markdown and HTML would take for theirs escaped; cut after `most` signs."""
    signs = "".join(sign if unicodedata.category(sign)[0] != "C" else " " for sign in str(value))
    line = " ".join(signs.split())
    return _SPECIAL.sub(r"\\\1", line if len(line) <= most else f"{line[: most - 3]}...")


def number(value: Any) -> str:
    """A number as people read it: 12,345 and 0.1234; yes and no; anything else as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if is_finite(value) else text(value)


def is_finite(value: Any) -> bool:
    """Whether a value of a JSON file is a number that can be told as one."""
    return isinstance(value, int | float) and math.isfinite(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its cells being Markdown already, with an empty line after it; none without rows."""
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def fence(language: str, content: str) -> list[str]:
    """A block of code, between more backticks than there are in a row anywhere in it."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    ticks = "`" * max(3, longest + 1)
    return [f"{ticks}{language}", content.rstrip("\n"), ticks, ""]


def quoted(value: str) -> str:
    """A text as a Python literal."""
    return json.dumps(value, ensure_ascii=False)
