"""The note of a column that no option reads, and the line that lists all such columns of a source."""

from collections.abc import Mapping
from typing import Any

MOST_NAMES = 200
"""More names than a table has columns: where each row has names of its own, the first ones stand for all."""
MORE = "further columns are read by no option"
_START, _END = "column ", " is read by no option"
_MOST_SHOWN = 12
_LONGEST_NAME = 60


def unread_note(name: str) -> str:
    """The note of a row that has something in the column `name`, which no option reads."""
    return f"{_START}{_shown(name)}{_END}"


def absent_note(name: str) -> str:
    """The note of a row that lacks a column which the recipe names and the format can do without."""
    return f"column {_shown(name)}, which the recipe names, is not there"


def _shown(name: str) -> str:
    shown = repr(name)
    return shown if len(shown) <= _LONGEST_NAME else shown[: _LONGEST_NAME - 3] + "..."


def is_unread(note: str) -> bool:
    """True for the notes of columns that no option reads."""
    return note == MORE or (note.startswith(_START) and note.endswith(_END))


def unread_line(notes: Mapping[str, int]) -> str:
    """One line for all such columns among a source's notes, with their rows; empty where there is none."""
    found = {note.removeprefix(_START).removesuffix(_END): rows for note, rows in notes.items() if is_unread(note)}
    rest = found.pop(MORE, None)
    if not found:
        return ""
    shown = [f"{name} ({rows:,} rows)" for name, rows in list(found.items())[:_MOST_SHOWN]]
    left = len(found) - len(shown)
    if left or rest is not None:
        shown.append(f"and {left if left and rest is None else 'many'} more, which ledger.json lists")
    return f"columns that no option reads: {', '.join(shown)}"


def holds_something(value: Any) -> bool:
    """True for text, a list or an object that is not empty; a number or a date is no text that could be missed."""
    if isinstance(value, str):
        return value != "" and not value.isspace()
    if isinstance(value, Mapping):
        return any(item is not None for item in value.values())
    return isinstance(value, list | tuple | bytes) and bool(value)
