"""A cell of a spreadsheet as the text that people see in it."""

import datetime
import re
from typing import Any

_DIGITS = 15
"""A spreadsheet shows no more: 0.1 + 0.2 is 0.3 there."""
_PLAIN_FORMAT = re.compile(r"(?P<thousands>#,##)?0(?:\.(?P<decimals>0+))?(?P<percent>%)?")


def text_of_cell(value: Any, number_format: str) -> str:
    """The text of a cell's value. Numbers follow formats of decimals, thousands and per cent; dates are ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return _number(value, number_format)
    if isinstance(value, datetime.datetime):
        value = value.replace(microsecond=0)
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _number(value: int | float, number_format: str) -> str:
    form = _PLAIN_FORMAT.fullmatch(number_format)
    if form is None:
        return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)
    shown = value * 100 if form["percent"] else value
    comma = "," if form["thousands"] else ""
    return f"{shown:{comma}.{len(form['decimals'] or '')}f}{form['percent'] or ''}"
