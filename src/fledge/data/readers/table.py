"""CSV as rows: every value stays the text it is, and a ragged line is told."""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from fledge.data.readers.find import SourceFile
from fledge.data.readers.lines import not_utf8, opened, read_lines
from fledge.data.rows import BrokenRow, RawRow, Refusal
from fledge.errors import DataError

_LONGEST_VALUE = 1 << 26
"""Characters; a quote that is never closed would otherwise take the whole rest of the file."""


class _Lines:
    """Lines as text for csv.reader; remembers where a record starts and what in it is not UTF-8."""

    def __init__(self, stream: BinaryIO, file: SourceFile) -> None:
        self._lines = read_lines(stream, file)
        self.number = 0
        self._trouble: Refusal | None = None

    def take_trouble(self) -> Refusal | None:
        """What was not UTF-8 since this was last asked."""
        trouble, self._trouble = self._trouble, None
        return trouble

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.number = line.number
            try:
                text = line.content.decode("utf-8")
            except UnicodeDecodeError as error:
                self._trouble = self._trouble or Refusal("invalid", *not_utf8(error, line.offset))
                text = line.content.decode("utf-8", errors="replace")
            yield text


def read_csv(file: SourceFile) -> Iterator[RawRow | BrokenRow]:
    """Rows of a CSV file with a header line; a row's number is the line it starts at; blank lines are no rows.

    Raises DataError where the header is missing, not UTF-8, or names a column twice.
    """
    # The csv module's own limit of 131,072 characters is shorter than a long text; it is one for the process.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_VALUE))
    with opened(file) as stream:
        lines = _Lines(stream, file)
        reader = csv.reader(lines, strict=True)
        header = _header(reader, lines, file)
        while True:
            first = lines.number + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BrokenRow(first, lines.take_trouble() or _broken(error))
                continue
            trouble = lines.take_trouble()
            if trouble is not None:
                yield BrokenRow(first, trouble)
            elif len(values) == len(header):
                yield RawRow(first, dict(zip(header, values, strict=True)))
            elif values:
                yield BrokenRow(first, _ragged(values, header))


def _header(reader: Iterator[list[str]], lines: _Lines, file: SourceFile) -> list[str]:
    try:
        header = next((values for values in reader if values), [])
    except csv.Error as error:
        raise DataError(f"broken header: {error}", where=f"{file.path}:{max(lines.number, 1)}") from error
    where = f"{file.path}:{max(lines.number, 1)}"
    trouble = lines.take_trouble()
    if trouble is not None:
        raise DataError(trouble.what, where=where, cure=trouble.cure)
    if not header:
        raise DataError("the file is empty: not even a header line", where=str(file.path))
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"the header names a column twice: {', '.join(map(repr, twice))}", where=where)
    return header


def _broken(error: csv.Error) -> Refusal:
    what = "a quote is opened and never closed" if "end of data" in str(error) else f"broken CSV: {error}"
    return Refusal("invalid", what, 'a quote inside a quoted value is written twice: ""')


def _ragged(values: list[str], header: list[str]) -> Refusal:
    what = f"a ragged line: {len(values)} values where the header has {len(header)} columns"
    cure = "quote values that hold a comma or a line end" if len(values) > len(header) else "fill the missing values"
    return Refusal("invalid", what, cure)
