"""JSON arrays and JSON lines as rows."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from fledge.data.kinds import kind_of
from fledge.data.readers.find import SourceFile
from fledge.data.readers.lines import BOM, Line, decode, opened, read_lines, read_whole
from fledge.data.rows import BrokenRow, RawRow, Refusal
from fledge.errors import DataError

_BLOCK = 1 << 16
_BLANKS = b" \t\r\n"


def read_json_lines(file: SourceFile) -> Iterator[RawRow | BrokenRow]:
    """One object a line; blank lines are no rows; a line that is none is a broken row and the next is read."""
    with opened(file) as stream:
        yield from _rows_of_lines(read_lines(stream, file))


def read_json(file: SourceFile) -> tuple[Iterator[RawRow | BrokenRow], int | None]:
    """The rows of a `.json` file and their number: an array is parsed whole, JSON lines are streamed (number None).

    Raises DataError where the file is neither.
    """
    with opened(file) as stream:
        first = _first_byte(stream, file)
    if first == b"{":
        with opened(file) as stream:
            head = _first_lines(stream, file)
        if _looks_like_lines(head):
            return read_json_lines(file), None
    with opened(file) as stream:
        value = _parse_whole(read_whole(stream, file), file)
    if not isinstance(value, list):
        raise DataError(
            f"the top level is {kind_of(value)}, not an array of objects", where=str(file.path), cure=_array_cure(value)
        )
    return _rows_of_array(value), len(value)


def _rows_of_array(values: list[Any]) -> Iterator[RawRow | BrokenRow]:
    for number, value in enumerate(values, 1):
        yield RawRow(number, value) if isinstance(value, dict) else BrokenRow(number, _not_an_object(value))


def _rows_of_lines(lines: Iterable[Line]) -> Iterator[RawRow | BrokenRow]:
    for line in lines:
        text = decode(line)
        if isinstance(text, Refusal):
            yield BrokenRow(line.number, text)
        elif text and not text.isspace():
            value = _parse_line(text)
            yield BrokenRow(line.number, value) if isinstance(value, Refusal) else RawRow(line.number, value)


def _parse_line(text: str) -> dict[str, Any] | Refusal:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return Refusal("invalid", f"broken JSON: {error.msg} at column {error.colno}", _line_cure(text))
    except (ValueError, RecursionError) as error:
        return Refusal("invalid", f"broken JSON: {error}")
    return value if isinstance(value, dict) else _not_an_object(value)


def _line_cure(text: str) -> str:
    is_array = text.lstrip().startswith("[")
    return "a JSON array over several lines must be named .json" if is_array else "mend or remove the line"


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
    raise DataError("the file is empty", where=str(file.path))


def _first_lines(stream: BinaryIO, file: SourceFile) -> list[bytes]:
    """The first two lines that are not blank, fewer where there are no more or one is too long to be a row's."""
    head: list[bytes] = []
    try:
        for line in read_lines(stream, file):
            if line.content.strip():
                head.append(line.content)
            if len(head) == 2:
                break
    except DataError:
        return head
    return head


def _looks_like_lines(head: list[bytes]) -> bool:
    if not head:
        return False
    try:
        json.loads(head[0])
    except (ValueError, RecursionError):
        return len(head) > 1 and head[1].startswith(b"{")
    return True


def _parse_whole(text: str, file: SourceFile) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{file.path}:{error.lineno}"
        cure = "a JSON array is read whole, so one broken place spoils it; mend it, or use one object per line (.jsonl)"
        raise DataError(f"broken JSON: {error.msg} at column {error.colno}", where=where, cure=cure) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"broken JSON: {error}", where=str(file.path)) from error


def _array_cure(value: Any) -> str:
    lists = [key for key, item in value.items() if isinstance(item, list)] if isinstance(value, dict) else []
    hint = f" (the array may be under {lists[0]!r})" if lists else ""
    return f"write an array of objects, or one object per line{hint}"
