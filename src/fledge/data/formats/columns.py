"""A record's columns as text, and what is said where one is missing or is not text."""

from collections.abc import Mapping
from typing import Any

from fledge.config.nearest import nearest_name
from fledge.data.kinds import kind_of
from fledge.data.rows import TEXT_COLUMN, Refusal


def text_of(record: Mapping[str, Any], column: str) -> str | Refusal:
    """The text in a column, or what is wrong with it: missing (with those present and the nearest), or not text."""
    value = record.get(column)
    if isinstance(value, str):
        return (
            value
            if is_text(value)
            else Refusal("invalid", f"column {column!r} holds half a surrogate pair", _SURROGATE)
        )
    if column not in record:
        return missing(record, column)
    return Refusal("invalid", f"column {column!r} holds {kind_of(value)}, not text", "write the value as text")


_SURROGATE = "a \\ud800 to \\udfff escape stands alone; write the character whole"


def is_text(value: str) -> bool:
    """False where a lone surrogate keeps a string from being UTF-8."""
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def missing(record: Mapping[str, Any], column: str) -> Refusal:
    """What is said where a row lacks a column."""
    if TEXT_COLUMN in record:
        return Refusal("invalid", "a text file has no columns", "set the source's format to text")
    present = ", ".join(map(repr, record)) or "none"
    near = nearest_name(column, [str(name) for name in record])
    cure = f"did you mean {near!r}?" if near else "name the right column in the source, or choose another format"
    inner = [name for name, value in record.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if inner and not near:
        cure += f"; if the rows are the list under {inner[0]!r}, let the file hold that list alone"
    if len(record) == 1 and ";" in next(iter(record)):
        cure = "the header has no comma: separate columns by commas, not semicolons"
    return Refusal("invalid", f"no column {column!r}; present: {present}", cure)
