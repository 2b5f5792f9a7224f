"""JSON as rows: arrays, lines, columns, and lines that Python wrote."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from fledge.data.kinds import kind_of
from fledge.data.literals import literal_of
from fledge.data.readers.columnwise import rows_of_columns
from fledge.data.readers.find import SourceFile
from fledge.data.readers.lines import BOM, Line, decode, empty_file, opened, read_lines, read_whole
from fledge.data.rows import BrokenRow, RawRow, Refusal
from fledge.errors import DataError

Note = Callable[[str], None]
"""Told once for a file what a person should know of the way it is read."""
Rows = tuple[Iterator[RawRow | BrokenRow], int | None]

_BLOCK = 1 << 16
_BLANKS = b" \t\r\n"
_LITERALS = "the lines are Python literals (single quotes, None), not JSON; they are read as such"
_ARRAY = "the file is one JSON array, not one object a line; it is read as an array"
_COLUMNS = "the JSON holds columns, as pandas writes them by default; they are read as rows"


def read_objects(file: SourceFile, *, note: Note) -> Rows:
    """The rows of a JSON file and their number where it is known: an array or columns are parsed whole, lines streamed.

    `.json` and `.jsonl` differ in what is expected; what is found decides. Raises DataError where it is none of these.
    """
    with opened(file) as stream:
        first = _first_byte(stream, file)
    with opened(file) as stream:
        head = _first_lines(stream, file)
    if _is_whole(first, head, file):
        with opened(file) as stream:
            value = _parse_whole(read_whole(stream, file), file, note)
        return _rows_of_whole(value, file, note)
    parse = _parse_json
    if head and isinstance(_parse_json(head[0]), Refusal) and isinstance(_parse_python(head[0]), dict):
        note(_LITERALS)
        parse = _parse_either
    return _rows_of_file(file, parse), None


def _rows_of_file(file: SourceFile, parse: Callable[[str], Any]) -> Iterator[RawRow | BrokenRow]:
    """One object a line; blank lines are no rows; a line that is none is a broken row and the next is read."""
    with opened(file) as stream:
        yield from _rows_of_lines(read_lines(stream, file), parse)


def _rows_of_lines(lines: Iterable[Line], parse: Callable[[str], Any]) -> Iterator[RawRow | BrokenRow]:
    for line in lines:
        text = decode(line)
        if isinstance(text, Refusal):
            yield BrokenRow(line.number, text)
        elif text and not text.isspace():
            value = parse(text)
            value = value if isinstance(value, dict | Refusal) else _not_an_object(value)
            yield BrokenRow(line.number, value) if isinstance(value, Refusal) else RawRow(line.number, value)


def _is_whole(first: bytes, head: list[str], file: SourceFile) -> bool:
    """True where the file is one JSON value, not one a line."""
    one = _parse_json(head[0]) if head else None
    if first == b"[":
        if file.kind == "json" or not head:
            return True
        if isinstance(one, Refusal):
            return isinstance(_parse_python(head[0]), Refusal) and not _starts_a_row(head[1:])
        return len(head) == 1 and isinstance(one, list) and bool(one) and all(isinstance(item, dict) for item in one)
    if first != b"{" or not head:
        return file.kind == "json"
    if not isinstance(one, Refusal):
        has_lists = isinstance(one, dict) and any(isinstance(column, list) for column in one.values())
        return len(head) == 1 and not (has_lists and file.kind == "jsonl") and rows_of_columns(one) is not None
    if file.kind == "jsonl":
        return head[0].strip() == "{"
    is_python = isinstance(_parse_python(head[0]), dict)
    return not is_python and not (len(head) > 1 and head[1].startswith("{"))


def _starts_a_row(after: list[str]) -> bool:
    return bool(after) and isinstance(_parse_json(after[0]), dict)


def _rows_of_whole(value: Any, file: SourceFile, note: Note) -> Rows:
    if isinstance(value, list):
        if file.kind == "jsonl":
            note(_ARRAY)
        return _rows_of_array(value), len(value)
    columns = rows_of_columns(value)
    if columns is None:
        what = f"the top level is {kind_of(value)}, not an array of objects"
        raise DataError(what, where=str(file.path), cure=_array_cure(value))
    note(_COLUMNS)
    return _rows_of_array(columns), len(columns)


def _rows_of_array(values: list[Any]) -> Iterator[RawRow | BrokenRow]:
    for number, value in enumerate(values, 1):
        yield RawRow(number, value) if isinstance(value, dict) else BrokenRow(number, _not_an_object(value))


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cure = "mend or remove the line"
        if isinstance(_parse_python(text), dict):
            cure = "the line is a Python literal: write it with json.dumps"
        return Refusal("invalid", f"broken JSON: {error.msg} at column {error.colno}", cure)
    except (ValueError, RecursionError) as error:
        return Refusal("invalid", f"broken JSON: {error}")


def _parse_either(text: str) -> Any:
    value = _parse_json(text)
    other = _parse_python(text) if isinstance(value, Refusal) else value
    return value if isinstance(other, Refusal) else other


def _parse_python(text: str) -> Any:
    found = literal_of(text)
    return Refusal("invalid", "no Python literal") if found is None else found


def _not_an_object(value: Any) -> Refusal:
    cure = 'each row must be an object such as {"prompt": "...", "completion": "..."}'
    return Refusal("invalid", f"the row is {kind_of(value)}, not an object", cure)


def _first_byte(stream: BinaryIO, file: SourceFile) -> bytes:
    """The first byte that is no white space nor a byte-order mark, however long the first line is."""
    block = stream.read(_BLOCK).removeprefix(BOM)
    while block:
        body = block.lstrip(_BLANKS)
        if body:
            return body[:1]
        block = stream.read(_BLOCK)
    if file.kind == "json":
        raise empty_file("the file is empty", file)
    return b""


def _first_lines(stream: BinaryIO, file: SourceFile) -> list[str]:
    """The first two lines that are not blank; fewer where there are no more, or where one is too long or no UTF-8."""
    head: list[str] = []
    try:
        for line in read_lines(stream, file):
            text = decode(line)
            if isinstance(text, Refusal):
                break
            if text.strip():
                head.append(text)
            if len(head) == 2:
                break
    except DataError:
        return head
    return head


def _parse_whole(text: str, file: SourceFile, note: Note) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        value = _parse_python(text)
        if isinstance(value, list | dict):
            note(_LITERALS)
            return value
        where = f"{file.path}:{error.lineno}"
        cure = "a JSON array is read whole, so one broken place spoils it; mend it, or use one object per line (.jsonl)"
        if error.msg == "Extra data":
            cure = "write each object on one line of its own (.jsonl), or all of them as one array"
        raise DataError(f"broken JSON: {error.msg} at column {error.colno}", where=where, cure=cure) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"broken JSON: {error}", where=str(file.path)) from error


def _array_cure(value: Any) -> str:
    lists = [key for key, item in value.items() if isinstance(item, list)] if isinstance(value, dict) else []
    hint = f" (the array may be under {lists[0]!r})" if lists else ""
    return f"write an array of objects, or one object per line{hint}"
