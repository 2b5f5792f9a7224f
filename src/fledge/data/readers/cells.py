"""A cell of a spreadsheet as the text that people see in it."""

import datetime
import math
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from openpyxl.styles.numbers import is_date_format
from openpyxl.utils.escape import unescape

_DIGITS = 15
"""A spreadsheet shows no more: 0.1 + 0.2 is 0.3 there."""
_UNFORMED = ("", "General", "@")
_PLAIN_FORMAT = re.compile(r"(?:(?P<thousands>#,##)0|(?P<zeros>0+))(?:\.(?P<decimals>0+))?(?P<percent>%)?")
_EXACT = Context(prec=5000)
"""Digits enough for every number that is in a file, so that only the format rounds."""
_HOUR = 3600


def text_of_cell(value: Any, number_format: str) -> str:
    """The text of a cell's value.

    Numbers follow formats of decimals, leading zeros, thousands and per cent; dates are ISO 8601. Lines end with line
    feeds alone, and characters that Excel writes as escapes (_x000D_) are themselves.
    """
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
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    return _text(str(value))


def is_followed(value: Any, number_format: str) -> bool:
    """False for a number whose format says more of it than its text does."""
    if isinstance(value, bool) or not isinstance(value, int | float) or number_format in _UNFORMED:
        return True
    return _PLAIN_FORMAT.fullmatch(number_format) is not None or bool(is_date_format(number_format))


def _number(value: int | float, number_format: str) -> str:
    form = _PLAIN_FORMAT.fullmatch(number_format)
    if form is None or (isinstance(value, float) and not math.isfinite(value)):
        return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)
    exact = Decimal(repr(value)).scaleb(2 if form["percent"] else 0, _EXACT)
    shown = exact.quantize(Decimal(1).scaleb(-len(form["decimals"] or "")), ROUND_HALF_UP, _EXACT)
    whole, dot, decimals = f"{shown.copy_abs():{',' if form['thousands'] else ''}f}".partition(".")
    minus = "-" if shown < 0 else ""
    return f"{minus}{whole.zfill(len(form['zeros'] or ''))}{dot}{decimals}{form['percent'] or ''}"


def _duration(value: datetime.timedelta) -> str:
    """Hours, minutes and seconds; a spreadsheet has no days in what lasts longer."""
    seconds = round(abs(value).total_seconds())
    minus = "-" if value < datetime.timedelta() else ""
    return f"{minus}{seconds // _HOUR}:{seconds % _HOUR // 60:02}:{seconds % 60:02}"


def _text(value: str) -> str:
    if "_x" in value:
        found = unescape(value)
        # a character beyond the first 65,536 is two escapes; half of one stays, and is told when it is read as text
        value = found.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return value.replace("\r\n", "\n").replace("\r", "\n")
