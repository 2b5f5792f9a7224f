"""A spreadsheet (.xlsx) as rows: the first sheet, each value as the text that people see."""

import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, BinaryIO

import openpyxl
from openpyxl.utils import get_column_letter

from fledge.data.readers.cells import is_followed, text_of_cell
from fledge.data.readers.find import SourceFile
from fledge.data.readers.lines import empty_file, opened
from fledge.data.rows import BrokenRow, RawRow, Refusal
from fledge.errors import DataError

_FORMULA = re.compile(rb"<f[ >/]")
_BLOCK = 1 << 20
_OLD_OR_LOCKED = b"\xd0\xcf\x11\xe0"
_MOST_FORMATS = 5


def read_sheet(file: SourceFile, *, note: Callable[[str], None]) -> Iterator[RawRow | BrokenRow]:
    """Rows of the first sheet, below its first row that is not empty; a row's number is that of the sheet.

    Formulas give the value that was saved with the file. Raises DataError where the file is no whole .xlsx, or where
    its header names a column twice.
    """
    with opened(file) as stream:
        head = stream.read(4)
    if head == _OLD_OR_LOCKED:
        cure = "save it as .xlsx without a password, or as .csv"
        raise DataError("the file is an .xls, or locked by a password", where=str(file.path), cure=cure)
    try:
        with opened(file) as stream, opened(file) as again:
            yield from _rows(stream, again, file, note)
    except DataError:
        raise
    except Exception as error:  # openpyxl lets through what its many parts raise; nothing is swallowed here
        logging.getLogger(__name__).debug("openpyxl failed", exc_info=True)
        what = f"cannot be read as .xlsx: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise DataError(what, where=str(file.path), cure="is it a spreadsheet, and whole?") from error


class _Shown:
    """What cells show, and what of their formats does not become text, said once for each format."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._told: set[str] = set()

    def text(self, cell: Any) -> str:
        if cell.value is None:
            return ""
        form = cell.number_format
        if form not in self._told and len(self._told) < _MOST_FORMATS and not is_followed(cell.value, form):
            self._told.add(form)
            self._note(
                f"the number format {form!r} is not followed, its numbers are read as General; first: {cell.coordinate}"
            )
        return text_of_cell(cell.value, form)


def _rows(
    stream: BinaryIO, again: BinaryIO, file: SourceFile, note: Callable[[str], None]
) -> Iterator[RawRow | BrokenRow]:
    has_formulas = _has_formulas(stream)
    values = openpyxl.load_workbook(stream, read_only=True, data_only=True)
    sheets = [sheet for sheet in values.worksheets if sheet.sheet_state == "visible"] or values.worksheets
    others = [sheet.title for sheet in values.worksheets if sheet is not sheets[0]]
    if others:
        note(f"the sheet {sheets[0].title!r} is read; not read: {', '.join(map(repr, others))}")
    sheets[0].reset_dimensions()
    formulas: Iterator[Any] = repeat(())
    if has_formulas:
        written = openpyxl.load_workbook(again, read_only=True)[sheets[0].title]
        written.reset_dimensions()
        formulas = written.iter_rows()
    header: list[str] = []
    shown = _Shown(note)
    for number, (cells, written_cells) in enumerate(zip(sheets[0].iter_rows(), formulas, strict=False), 1):
        trouble = _trouble(cells, written_cells, number)
        texts = [shown.text(cell) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        if not texts and trouble is None:
            continue
        if not header:
            header = _header(texts, file, number)
        elif trouble is None and len(texts) > len(header):
            column = get_column_letter(len(texts))
            what = f"column {column} has a value and no name in the header"
            yield BrokenRow(number, Refusal("invalid", what, "name the column, or empty it"))
        elif trouble is not None:
            yield BrokenRow(number, trouble)
        else:
            texts += [""] * (len(header) - len(texts))
            yield RawRow(number, dict(zip(header, texts, strict=True)))
    if not header:
        raise empty_file("the sheet is empty: not even a header row", file)


def _header(texts: list[str], file: SourceFile, number: int) -> list[str]:
    header = [text or get_column_letter(place) for place, text in enumerate(texts, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})[:10]
    if twice:
        what = f"the header names a column twice: {', '.join(map(repr, twice))}"
        raise DataError(what, where=f"{file.path}, row {number}", cure="give each column its own name")
    return header


def _trouble(cells: Any, written: Any, number: int) -> Refusal | None:
    """What is wrong with a row's cells: an error such as #REF!, or a formula whose value was never computed."""
    for place, cell in enumerate(cells):
        name = f"{get_column_letter(place + 1)}{number}"
        if cell.value is not None and cell.data_type == "e":
            return Refusal("invalid", f"cell {name} holds the error {cell.value}", "mend the cell, or empty it")
        if cell.value is None and place < len(written) and written[place].data_type == "f":
            cure = "open the file in a spreadsheet program and save it, so that the values are in it"
            return Refusal("invalid", f"cell {name} holds a formula whose value is not in the file", cure)
    return None


def _has_formulas(stream: BinaryIO) -> bool:
    """Whether any sheet has a formula, found in the packed XML; leaves the stream at its start."""
    found = False
    with zipfile.ZipFile(stream) as archive:
        for name in archive.namelist():
            if name.startswith("xl/worksheets/") and not found:
                with archive.open(name) as part:
                    tail = b""
                    while not found and (block := part.read(_BLOCK)):
                        found = _FORMULA.search(tail + block) is not None
                        tail = block[-3:]
    stream.seek(0)
    return found
