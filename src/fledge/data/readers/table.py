"""CSV and TSV as rows: every value stays the text it is, and every line is in a row or told as broken."""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from fledge.data.readers.find import SourceFile
from fledge.data.readers.lines import empty_file, not_utf8, opened, read_lines
from fledge.data.readers.separator import SAMPLE_LINES, Form, find_form
from fledge.data.rows import BrokenRow, RawRow, Refusal
from fledge.errors import DataError

_LONGEST_VALUE = 1 << 26
"""Characters; a quote that is never closed would otherwise take the whole rest of the file."""
_SAMPLE_CHARACTERS = 1 << 16
_ALIKE = 0.9
"""The share of the lines inside a broken value from which on they are taken for rows that an open quote swallowed."""
_MANY_LINES = 3
_QUOTES = 'put the value in quotes and write each quote inside it twice, as in "a ""b"" c"; or remove the quotes'
_OPEN = "close the quote at the end of the value, or remove it"
_STRAY = "broken CSV: a quote stands in the middle of a value"
_SWALLOWED = "a value holds several lines that look like rows themselves; is a quote left open there?"


@dataclass(frozen=True, slots=True)
class _Text:
    """One line as text, and what in it is not UTF-8."""

    number: int
    text: str
    trouble: Refusal | None = None


class _Lines:
    """Lines as text for csv.reader, which remembers those of the record at hand and takes some of them back."""

    def __init__(self, stream: BinaryIO, file: SourceFile) -> None:
        self._lines = read_lines(stream, file)
        self._again: deque[_Text] = deque()
        self.taken: list[_Text] = []

    def take_back(self, lines: Sequence[_Text]) -> None:
        """Give these lines, the last ones, once more."""
        self._again.extendleft(reversed(lines))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        self.taken.append(line)
        return line.text

    def _read(self) -> _Text:
        line = next(self._lines)
        try:
            return _Text(line.number, line.content.decode("utf-8"))
        except UnicodeDecodeError as error:
            text = line.content.decode("utf-8", errors="replace")
            return _Text(line.number, text, Refusal("invalid", *not_utf8(error, line.offset)))


def read_csv(file: SourceFile, *, delimiter: str | None, note: Callable[[str], None]) -> Iterator[RawRow | BrokenRow]:
    """Rows of a table with a header line; a row's number is the line it starts at; blank lines are no rows.

    Every line that is not blank is part of a row or has a broken row of its own. `delimiter` is found where it is None.
    Columns at the end that have neither a name nor a value are left out. Raises DataError where the header is missing,
    not UTF-8, without any name, or names a column twice.
    """
    # The csv module's own limit of 131,072 characters is shorter than a long text; it is one for the process.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_VALUE))
    own = "\t" if file.kind == "tsv" else ","
    with opened(file) as stream:
        sample, is_cut = _sample(stream, file)
    form = find_form(sample, own=own, is_cut=is_cut, delimiter=delimiter, note=note)
    with opened(file) as stream:
        yield from _Table(_Lines(stream, file), file, form=form, note=note).rows()


def _sample(stream: BinaryIO, file: SourceFile) -> tuple[list[str], bool]:
    """The first lines, and whether there may be more."""
    lines: list[str] = []
    size = 0
    for line in read_lines(stream, file):
        lines.append(line.content.decode("utf-8", errors="replace"))
        size += len(lines[-1])
        if len(lines) >= SAMPLE_LINES or size > _SAMPLE_CHARACTERS:
            return lines, True
    return lines, False


class _Table:
    """A table on its way into rows."""

    def __init__(self, lines: _Lines, file: SourceFile, *, form: Form, note: Callable[[str], None]) -> None:
        self._lines = lines
        self._form = form
        self._note = note
        if form.names_separator:
            next(lines)
            lines.taken.clear()
        self._header, self._width = _header(self._reader(), lines, file)
        self._has_plain_rows = not any('"' in line.text for line in lines.taken)
        """Whether rows without any quote are usual here: so far no row has shown the contrary."""
        self._num_good = 0
        mark = re.escape(form.separator)
        begin = rf"(?:^|{mark}) *" if form.skips_spaces else rf"(?:(?<=^)|(?<={mark}))"
        self._whole_values = re.compile(rf'{begin}"(?:[^"]|"")*"(?={mark}|\r?\n?\Z|\r\Z)')

    def rows(self) -> Iterator[RawRow | BrokenRow]:
        reader = self._reader()
        doubtful = 0  # the number of a line that a broken value ran into: its row must have no stray quote
        while True:
            self._lines.taken.clear()
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines = list(self._lines.taken)
                yield from self._broken(lines, error)
                doubtful = lines[-1].number
                reader = self._reader()
                continue
            if not values:
                continue
            lines = list(self._lines.taken)
            row = self._row(lines, values, is_doubtful=lines[0].number == doubtful)
            yield row
            is_utf8 = all(line.trouble is None for line in lines)
            if isinstance(row, BrokenRow) and len(lines) > 1 and is_utf8:
                yield from self._inside(lines[1:], begins=lines[0].number, is_sure=False)

    def _reader(self) -> Iterator[list[str]]:
        return self._values_of(self._lines)

    def _values_of(self, lines: Iterable[str]) -> Iterator[list[str]]:
        form = self._form
        return csv.reader(lines, delimiter=form.separator, skipinitialspace=form.skips_spaces, strict=True)

    def _row(self, lines: Sequence[_Text], values: list[str], *, is_doubtful: bool) -> RawRow | BrokenRow:
        number = lines[0].number
        trouble = next((line.trouble for line in lines if line.trouble is not None), None)
        text = lines[0].text if len(lines) == 1 else "".join(line.text for line in lines)
        if trouble is None and is_doubtful and self._has_stray_quote(text):
            trouble = Refusal("invalid", _STRAY, _QUOTES)
        if trouble is None and not self._fits(values):
            trouble = _ragged(values, self._width, num_lines=len(lines))
        record = trouble or self._record(values)
        if isinstance(record, Refusal):
            return BrokenRow(number, record)
        is_plain = '"' not in text
        self._has_plain_rows = is_plain or (self._has_plain_rows and self._num_good > 0)
        self._num_good += 1
        if len(lines) - 2 >= _MANY_LINES and self._look_like_rows(lines[1:-1]):
            self._note(f"{_SWALLOWED} (line {number})")
        return RawRow(number, record)

    def _fits(self, values: Sequence[str]) -> bool:
        """Whether these are as many values as the header has columns; those without a name may lack."""
        return len(self._header) <= len(values) <= self._width

    def _record(self, values: Sequence[str]) -> dict[str, str] | Refusal:
        named = len(self._header)
        if len(values) > named:
            full = next((place for place, value in enumerate(values[named:], named + 1) if value.strip()), None)
            if full is not None:
                what = f"column {full} has a value and no name in the header"
                return Refusal("invalid", what, "name the column in the header, or empty it")
            values = values[:named]
        return dict(zip(self._header, values, strict=True))

    def _broken(self, lines: Sequence[_Text], error: csv.Error) -> Iterator[RawRow | BrokenRow]:
        """The rows of lines that csv.reader took for one record before it came upon an error."""
        first = lines[0]
        is_open = "end of data" in str(error)
        what = "a quote is opened and never closed" if is_open else f"broken CSV: {error}"
        if "new-line character" in str(error):
            what = "broken CSV: a carriage return stands in a value without quotes"
        if len(lines) > 1 and not is_open:
            what = f"broken CSV: a quote that is opened here closes in the middle of a value in line {lines[-1].number}"
        if self._num_good == 0 and self._whole_values.search(first.text):
            self._has_plain_rows = False  # a value is in quotes without need, so all may be
        cure = _OPEN if is_open or len(lines) > 1 else _QUOTES
        yield BrokenRow(first.number, first.trouble or Refusal("invalid", what, cure))
        yield from self._inside(lines[1:] if is_open else lines[1:-1], begins=first.number, is_sure=True)
        if not is_open and len(lines) > 1:
            self._lines.take_back(lines[-1:])

    def _inside(self, lines: Sequence[_Text], *, begins: int, is_sure: bool) -> Iterator[RawRow | BrokenRow]:
        """The lines after the first one of a broken record: rows of their own where they look like rows.

        Where `is_sure` is False the quotes themselves are in order, so that more is asked for.
        """
        inner = lines if is_sure else lines[:-1]
        are_rows = (is_sure or len(inner) >= _MANY_LINES) and self._look_like_rows(inner)
        for line in lines:
            if not line.text.strip("\r\n"):
                continue
            if are_rows:
                record = self._alone(line)
                yield BrokenRow(line.number, record) if isinstance(record, Refusal) else RawRow(line.number, record)
            else:
                what = f"the line belongs to the broken row that begins in line {begins}"
                yield BrokenRow(line.number, Refusal("invalid", what, f"mend line {begins}: {_OPEN}"))

    def _alone(self, line: _Text) -> dict[str, str] | Refusal:
        """The record of a line that is a row of its own, or what is wrong with that line, whatever stands before it."""
        try:
            values = next(self._values_of([line.text]), [])
        except csv.Error as error:
            is_open = "end of data" in str(error)
            what = "a quote is opened and never closed" if is_open else f"broken CSV: {error}"
            return line.trouble or Refusal("invalid", what, _OPEN if is_open else _QUOTES)
        if line.trouble is not None:
            return line.trouble
        if self._has_stray_quote(line.text):
            return Refusal("invalid", _STRAY, _QUOTES)
        return self._record(values) if self._fits(values) else _ragged(values, self._width, num_lines=1)

    def _look_like_rows(self, lines: Sequence[_Text]) -> bool:
        """True where nearly every line has as many values as the header, and rows without quotes are usual here."""
        found = [self._fits(self._values(line)) for line in lines if line.text.strip("\r\n")]
        return self._has_plain_rows and bool(found) and sum(found) >= _ALIKE * len(found)

    def _values(self, line: _Text) -> list[str]:
        try:
            return next(self._values_of([line.text]), [])
        except csv.Error:
            return []

    def _has_stray_quote(self, text: str) -> bool:
        return '"' in text and '"' in self._whole_values.sub("", text)


def _header(reader: Iterator[list[str]], lines: _Lines, file: SourceFile) -> tuple[list[str], int]:
    """The names of the columns up to the last one that has a name, and how many columns there are in all."""
    try:
        header = next((values for values in reader if values), [])
    except csv.Error as error:
        number = lines.taken[-1].number if lines.taken else 1
        cure = _OPEN if "end of data" in str(error) else _QUOTES
        raise DataError(f"broken header: {error}", where=f"{file.path}:{number}", cure=cure) from error
    trouble = next((line for line in lines.taken if line.trouble is not None), None)
    where = f"{file.path}:{(trouble or lines.taken[-1]).number if lines.taken else 1}"
    if trouble is not None and trouble.trouble is not None:
        raise DataError(trouble.trouble.what, where=where, cure=trouble.trouble.cure)
    if not header:
        raise empty_file("the file is empty: not even a header line", file)
    width = len(header)
    while header and not header[-1].strip():
        header.pop()
    if not header:
        cure = "write the columns' names into the first line"
        raise DataError("the header names no column", where=where, cure=cure)
    header = [name if name.strip() else f"column {place} (no name)" for place, name in enumerate(header, 1)]
    seen: set[str] = set()
    twice = sorted({name for name in header if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if twice:
        shown = ", ".join(repr(name)[:60] for name in twice[:10])
        raise DataError(f"the header names a column twice: {shown}", where=where, cure="give each column its own name")
    return header, width


def _ragged(values: list[str], width: int, *, num_lines: int) -> Refusal:
    several, columns = ("s" if number != 1 else "" for number in (len(values), width))
    what = f"a ragged line: {len(values)} value{several} where the header has {width} column{columns}"
    cure = "quote values that hold a separator or a line end" if len(values) > width else "fill the missing values"
    if num_lines > 1:
        what, cure = f"{what}, in a row of {num_lines} lines", f"{cure}, or close the quote that is left open"
    return Refusal("invalid", what, cure)
