"""A record's columns as text, and what is said where one is not text."""

from collections.abc import Mapping
from typing import Any

from fledge.data.kinds import kind_of
from fledge.data.rows import Refusal


def text_of(record: Mapping[str, Any], column: str) -> str | Refusal:
    """The text in a column that the record has, or what is wrong with it: no text, or half a character."""
    value = record[column]
    if isinstance(value, str):
        return (
            value
            if is_text(value)
            else Refusal("invalid", f"column {column!r} holds half a surrogate pair", _SURROGATE)
        )
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
