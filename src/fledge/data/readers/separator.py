"""How a table is written, found in its first lines: what stands between two values."""

import contextlib
import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SAMPLE_LINES = 50
_NAMING = re.compile(r'"?sep=(?P<mark>[^\w"\r\n])"?[\r\n]*', re.IGNORECASE)
"""The line that Excel reads and writes before the header."""
_MOST = 0.9


@dataclass(frozen=True, slots=True)
class Form:
    """How a table is written."""

    separator: str
    names_separator: bool = False
    """Whether a first line such as sep=; stands before the header."""
    skips_spaces: bool = False
    """Whether quoted values have a space before them, which is then no part of any value."""


def find_form(
    lines: Sequence[str], *, own: str, is_cut: bool, delimiter: str | None, note: Callable[[str], None]
) -> Form:
    """How the table of these first lines is written; `delimiter` is what the recipe says of it.

    `own` and `is_cut` are those of `find_separator`. What is no matter of course is noted.
    """
    named = _NAMING.fullmatch(lines[0]) if lines else None
    if named is not None:
        lines = lines[1:]
        mark = named["mark"]
        separator = delimiter or mark
        if separator == mark:
            note(f"the first line (sep=) says that values are separated by {_name(mark)}; it is followed and is no row")
        else:
            said = f"says {_name(mark)}, the source's delimiter says {_name(separator)} and is taken"
            note(f"the first line (sep=) {said}; the line is no row")
    elif delimiter is not None:
        separator = delimiter
    else:
        separator = find_separator(lines, own=own, is_cut=is_cut)
        if separator != own:
            note(f"values are separated by {SEPARATORS[separator]}")
    share = _share_in_quotes(lines, separator) if separator != " " else 0.0
    skips = share >= _MOST
    if share and not skips:
        note("some values have a space before a quote and others only a space; spaces and such quotes are kept as text")
    if skips:
        note('quoted values have a space before them, as in "a", "b"; spaces before values are left out')
    return Form(separator, named is not None, skips)


def find_separator(lines: Sequence[str], *, own: str, is_cut: bool) -> str:
    """Comma, semicolon or tab: the one by which most lines have as many values as the header, and that more than one.

    `own` is what the file's name stands for; it is taken where no other fits better. `is_cut` says that the last record
    may go on after these lines.
    """
    fits = {mark: _fit(lines, mark, is_cut=is_cut) for mark in (own, *SEPARATORS)}
    best = max(fits, key=lambda mark: fits[mark])
    return best if fits[best] > fits[own] else own


def _name(mark: str) -> str:
    return SEPARATORS.get(mark, repr(mark))


def _fit(lines: Sequence[str], mark: str, *, is_cut: bool) -> float:
    """The share of records with as many values as the header; -1 where the header is one value."""
    records: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # what was read before counts
        records.extend(record for record in csv.reader(lines, delimiter=mark) if record)
    if not records or len(records[0]) < 2:
        return -1.0
    rows = records[1 : -1 if is_cut else None]
    return sum(len(row) == len(records[0]) for row in rows) / len(rows) if rows else 1.0


def _share_in_quotes(lines: Sequence[str], separator: str) -> float:
    """Of the values that begin with a space, below the header, the share of those that are in quotes after it."""
    mark = re.escape(separator)
    value = re.compile(rf'(?P<quoted> *"(?:[^"]|"")*"(?={mark}|[\r\n]|\Z))|(?P<plain>[^\r\n{mark}]*)')
    text = "".join(lines[1:])
    position, counts = 0, {"quoted": 0, "plain": 0}
    while position < len(text):
        found = value.match(text, position)
        assert found is not None, "plain values may be empty"
        if found["quoted"] is None and found["plain"].lstrip(" ").startswith('"'):
            break  # a quote that is not closed where a value ends: what follows may be inside of a value
        is_first = position == 0 or text[position - 1] in "\r\n"
        if found[0].startswith(" ") and not is_first:
            counts[str(found.lastgroup)] += 1
        position = found.end() + 1
    return counts["quoted"] / max(sum(counts.values()), 1)
