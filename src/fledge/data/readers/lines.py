"""Files as bytes and lines: gzip, UTF-8, byte-order marks, and errors that name the place."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from fledge.data.readers.find import SourceFile
from fledge.data.readers.stand_in import refuse_stand_in
from fledge.data.rows import Refusal
from fledge.errors import DataError

BOM = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_RETURN = re.compile(rb"(?<=\r)(?=[^\n])|(?<=\n)(?=.)", re.DOTALL)
_HEAD = 1 << 12
_BLOCK = 1 << 20
LONGEST_LINE = 1 << 28
"""Bytes of one line; a longer one is no line but a file without line ends, and would fill the memory."""


class EmptyFile(DataError):
    """A file has nothing in it, not even a header: of several files of a source that is worth a note and no more."""


def empty_file(what: str, file: SourceFile) -> EmptyFile:
    """The error for a file that has nothing in it."""
    return EmptyFile(what, where=str(file.path), cure="write rows into it, or name another file as the source's path")


@dataclass(frozen=True, slots=True)
class Line:
    """One line, its line end included. `number` counts from 1, `offset` is the byte it starts at."""

    number: int
    offset: int
    content: bytes


@contextmanager
def opened(file: SourceFile) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked. Raises DataError where it cannot be opened, read or unpacked, or where something else
    lies in the place of the data: a pointer of git-lfs, a web page, a spreadsheet under the name of a table.
    """
    try:
        with file.path.open("rb") as raw:
            refuse_stand_in(raw.peek(_HEAD)[:_HEAD], file)
            if not file.is_gzip:
                yield raw
            else:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    refuse_stand_in(unpacked.peek(_HEAD)[:_HEAD], file, is_unpacked=True)
                    yield cast(BinaryIO, unpacked)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        cure = "the file is cut off or damaged, or is not gzip; fetch or pack it again"
        raise DataError(f"cannot be unpacked: {error}", where=str(file.path), cure=cure) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(file.path)) from error


def read_lines(stream: BinaryIO, file: SourceFile) -> Iterator[Line]:
    """The lines of a stream, parted at line feeds only (U+2028 and its like are text); a byte-order mark is left out.

    In a file without a line feed at its start, carriage returns part lines, as they did on old Macs. Memory is one
    line. Raises DataError for UTF-16 and for a line of more than `LONGEST_LINE` bytes.
    """
    offset = 0
    head = cast(io.BufferedReader, stream).peek(_HEAD)
    is_mac = b"\r" in head and b"\n" not in head
    parted = _parted_at_returns(stream) if is_mac else iter(lambda: stream.readline(LONGEST_LINE + 1), b"")
    for number, content in enumerate(parted, 1):
        start = offset
        offset += len(content)
        if len(content) > LONGEST_LINE:
            what = f"a line of more than {LONGEST_LINE:,} bytes"
            raise DataError(what, where=f"{file.path}:{number}", cure="is this a file with one row a line?")
        if number == 1:
            content = _without_bom(content, file)
            start = offset - len(content)
        yield Line(number, start, content)


def _parted_at_returns(stream: BinaryIO) -> Iterator[bytes]:
    """Lines that end with a carriage return, a line feed or both; of one that is too long, the start."""
    rest = b""
    while block := stream.read(_BLOCK):
        *lines, rest = _RETURN.split(rest + block)
        yield from lines
        if len(rest) > LONGEST_LINE:
            break
    if rest:
        yield rest


def read_whole(stream: BinaryIO, file: SourceFile) -> str:
    """The whole stream as text. Raises DataError naming byte and line where it is not UTF-8."""
    content = stream.read()
    body = _without_bom(content, file)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        what, cure = not_utf8(error, len(content) - len(body))
        raise DataError(what, where=f"{file.path}:{line}", cure=cure) from error


def decode(line: Line) -> str | Refusal:
    """The line's text, or why it is none."""
    try:
        return line.content.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refusal("invalid", *not_utf8(error, line.offset))


def not_utf8(error: UnicodeDecodeError, offset: int) -> tuple[str, str]:
    """What is wrong and its cure, for bytes that start at `offset` of the file."""
    byte = error.object[error.start]
    what = f"not UTF-8: byte 0x{byte:02x} at offset {offset + error.start} of the file ({error.reason})"
    return what, "save the file as UTF-8 (iconv -f latin1 -t utf-8, if it is Latin-1)"


def _without_bom(content: bytes, file: SourceFile) -> bytes:
    if content.startswith(_UTF16_MARKS):
        cure = "save the file as UTF-8 (iconv -f utf-16 -t utf-8)"
        raise DataError("the file is UTF-16, not UTF-8", where=str(file.path), cure=cure)
    return content.removeprefix(BOM)
