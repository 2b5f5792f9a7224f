"""Null, NaN and the empty string are one thing: a place without a value."""

import math
from typing import Any


def plain(value: Any) -> Any:
    """The value, or the empty string where a row has none: null, or the NaN that tables have for null."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def is_filled(value: Any) -> bool:
    """True where a value holds any text or bytes at all, in whatever list or object."""
    if isinstance(value, str | bytes):
        return bool(value.strip())
    if isinstance(value, dict):
        return any(is_filled(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_filled(item) for item in value)
    return False
