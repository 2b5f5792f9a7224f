"""What kind of value it is, as people say it."""

from typing import Any

_KINDS = {list: "a list", dict: "an object", str: "text", int: "a number", float: "a number", bool: "true or false"}


def kind_of(value: Any) -> str:
    """`a list`, `text`, `null`; for what JSON does not know, the type's own name."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)
