"""Arrow's values as Python's: objects with the keys they were written with, and a word for what Python cannot hold."""

import json
from collections.abc import Callable
from typing import Any

import pyarrow
from pyarrow import types

from fledge.data.rows import Refusal

UNITED = "parquet (or arrow) gives each object the keys of all; members without a value are left out of nested objects"
_UNHELD = (ArithmeticError, ValueError, TypeError, KeyError, RecursionError, pyarrow.ArrowException)
"""What pyarrow raises for a value that Python cannot hold, such as a day in the year 30000."""
_LEAVE = "mend the value, or write the file without the column"
_IS_TEXT = (types.is_string, types.is_large_string, types.is_string_view)
_IS_TIME = (types.is_timestamp, types.is_date, types.is_time, types.is_duration)
_IS_LIST = (
    types.is_list,
    types.is_large_list,
    types.is_fixed_size_list,
    types.is_list_view,
    types.is_large_list_view,
)

_Mend = Callable[[Any], Any]


def records_of(batch: Any, *, note: Callable[[str], None]) -> list[dict[str, Any] | Refusal]:
    """The rows of a record batch or table, or why a row is none.

    Arrow unites the keys of all objects in a column and fills up with nulls. So members that are null are left out of
    objects, and that is noted. The messages of a conversation keep them: a message may have no text. Values of Arrow's
    JSON type are what the JSON says. A value that Python cannot hold is Arrow's own text of it.
    """
    names = batch.schema.names
    if not names:
        return [{} for _ in range(batch.num_rows)]
    note = _once(note)
    columns = [_column(batch.column(place), name, note) for place, name in enumerate(names)]
    return [_record(names, values) for values in zip(*columns, strict=True)]


def _once(note: Callable[[str], None]) -> Callable[[str], None]:
    """The note, for code that has the same to say of object after object."""
    said: set[str] = set()

    def tell(words: str) -> None:
        if words not in said:
            said.add(words)
            note(words)

    return tell


def _record(names: list[str], values: tuple[Any, ...]) -> dict[str, Any] | Refusal:
    refused = next((value for value in values if isinstance(value, Refusal)), None)
    return refused or dict(zip(names, values, strict=True))


def _column(values: Any, name: str, note: Callable[[str], None]) -> list[Any]:
    mend = _mend(values.type, note, may_be_message=True)
    try:
        found = values.to_pylist()
        return [_unless_null(mend, value) for value in found] if mend else found
    except _UNHELD:  # of some row, which only the rows one by one can tell
        return [_value(values.slice(place, 1), name, mend) for place in range(len(values))]


def _value(one: Any, name: str, mend: _Mend | None) -> Any:
    """The only value of an array; a refusal where it cannot be had."""
    try:
        [value] = _held(one)
        return _unless_null(mend, value)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        what = f"column {name!r} holds text that is not UTF-8: byte 0x{byte:02x} at offset {error.start} of the text"
        return Refusal("invalid", what, "write the text as UTF-8")
    except json.JSONDecodeError as error:
        return Refusal(
            "invalid", f"column {name!r} holds broken JSON: {error.msg} at character {error.pos + 1}", _LEAVE
        )
    except _UNHELD as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return Refusal("invalid", f"column {name!r} holds a value that cannot be read: {said}", _LEAVE)


def _held(one: Any) -> list[Any]:
    try:
        return list(one.to_pylist())
    except UnicodeDecodeError:
        raise
    except _UNHELD:
        return list(one.cast(_with_text_for_times(one.type)).to_pylist())


def _with_text_for_times(kind: Any) -> Any:
    """The type with text in the place of dates, times and durations: Python's have a smaller range than Arrow's."""
    if any(is_time(kind) for is_time in _IS_TIME):
        return pyarrow.string()
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_with_text_for_times(field.type)) for field in kind])
    if types.is_map(kind):
        return pyarrow.map_(_with_text_for_times(kind.key_type), _with_text_for_times(kind.item_type))
    if any(is_list(kind) for is_list in _IS_LIST):
        return pyarrow.large_list(_with_text_for_times(kind.value_type))
    return _with_text_for_times(kind.value_type) if types.is_dictionary(kind) else kind


def _mend(kind: Any, note: Callable[[str], None], *, may_be_message: bool) -> _Mend | None:
    """What makes of a Python value of this type what was meant; None where it is that already.

    `may_be_message` says that nothing but lists is around it.
    """
    if isinstance(kind, pyarrow.JsonType):
        return json.loads
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _mend(kind.storage_type, note, may_be_message=may_be_message)
    if types.is_struct(kind):
        return _mend_of_object(kind, note, keeps_null=may_be_message and _is_message(kind))
    if types.is_map(kind):
        item = _mend(kind.item_type, note, may_be_message=False)
        return None if item is None else _each(lambda pair: (pair[0], _unless_null(item, pair[1])))
    if any(is_list(kind) for is_list in _IS_LIST):
        item = _mend(kind.value_type, note, may_be_message=may_be_message)
        return None if item is None else _each(item)
    return _mend(kind.value_type, note, may_be_message=may_be_message) if types.is_dictionary(kind) else None


def _each(mend: _Mend) -> _Mend:
    return lambda items: [_unless_null(mend, item) for item in items] if items is not None else None


def _mend_of_object(kind: Any, note: Callable[[str], None], *, keeps_null: bool) -> _Mend:
    found = {field.name: _mend(field.type, note, may_be_message=False) for field in kind}
    mends = [(name, mend) for name, mend in found.items() if mend is not None]

    def mended(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kept = value if keeps_null else {name: member for name, member in value.items() if member is not None}
        if len(kept) < len(value):
            note(UNITED)
        for name, mend in mends:
            if kept.get(name) is not None:
                kept[name] = mend(kept[name])
        return kept

    return mended


def _unless_null(mend: _Mend | None, value: Any) -> Any:
    return value if mend is None or value is None else mend(value)


def _is_message(kind: Any) -> bool:
    """True for an object with a text that says who speaks, in the words of OpenAI or of ShareGPT."""
    said = [field.type for field in kind if field.name in ("role", "from")]
    return any(is_text(one.value_type if types.is_dictionary(one) else one) for one in said for is_text in _IS_TEXT)
