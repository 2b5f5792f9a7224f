"""Spreadsheets: the first sheet, as the text that people see; what has no text is told."""

import datetime
import zipfile

import openpyxl
import pytest
from openpyxl.worksheet.formula import ArrayFormula

from fledge.config.data import SourceConfig
from fledge.data.readers.cells import text_of_cell
from fledge.data.readers.rows import open_source, read_part
from fledge.data.rows import BrokenRow, RawRow
from fledge.errors import DataError


def book(path, rows, *, title="Sheet", others=()):
    made = openpyxl.Workbook()
    made.active.title = title
    for row in rows:
        made.active.append(row)
    for other in others:
        made.create_sheet(other).append(["not", "read"])
    made.save(path)
    return path


def read(path):
    opened = open_source(SourceConfig(path=str(path), format="completion"))
    return list(read_part(opened, 0)[0]), [note for _, note in opened.noted], opened


def test_a_sheet_is_read_as_the_text_that_people_see(tmp_path):
    day = datetime.datetime(2024, 3, 1)
    rows = [
        [None, None],
        ["prompt", "completion", "n", None],
        ["Q1", " a\nb", 7],
        [None, None, None],
        [1.5, True, day],
        ["Q3", None, 0.1 + 0.2],
    ]
    found, notes, opened = read(book(tmp_path / "a.xlsx", rows))
    assert [(row.number, row.record) for row in found] == [
        (3, {"prompt": "Q1", "completion": " a\nb", "n": "7"}),
        (5, {"prompt": "1.5", "completion": "TRUE", "n": "2024-03-01"}),
        (6, {"prompt": "Q3", "completion": "", "n": "0.3"}),
    ]
    assert not notes
    assert opened.where(0, 3) == "a.xlsx, row 3"


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (5.0, "General", "5"),
        (1234.5, "#,##0.00", "1,234.50"),
        (0.256, "0.0%", "25.6%"),
        (3, "0.00", "3.00"),
        (1e21, "General", "1e+21"),
        (7, '"No." 0', "7"),
        (2.5, "0", "3"),
        (0.5, "0", "1"),
        (-0.5, "0", "-1"),
        (-0.4, "0", "0"),
        (-0.004, "0.00", "0.00"),
        (0.125, "0.00", "0.13"),
        (1.005, "0.00", "1.01"),
        (0.125, "0%", "13%"),
        (-1234567.5, "#,##0", "-1,234,568"),
        (1e300, "0.0", f"1{'0' * 300}.0"),
        (10**400, "#,##0.00", f"10{',000' * 133}.00"),
        (42, "00000", "00042"),
        (-42, "00000", "-00042"),
        (123456, "00000", "123456"),
        (4.25, "00.0", "04.3"),
        (float("inf"), "0.00", "inf"),
        (7, "@", "7"),
        (datetime.timedelta(hours=25, minutes=1, seconds=5), "[h]:mm:ss", "25:01:05"),
        ("one_x000D_\ntwo_x000d_three\r\nfour_x005F_x000D_", "@", "one\ntwo\nthree\nfour_x000D_"),
        ("_xD83D__xDE00_ _x0041_ _x12_ a_x", "General", "\U0001f600 A _x12_ a_x"),
        (datetime.datetime(2024, 3, 1, 12, 30, 5, 999), "d/m/yy", "2024-03-01 12:30:05"),
        (datetime.time(9, 5), "h:mm", "09:05:00"),
        (False, "General", "FALSE"),
        (None, "General", ""),
    ],
)
def test_a_cell_is_the_text_that_it_shows(value, form, text):
    assert text_of_cell(value, form) == text


def test_a_number_format_that_is_not_followed_is_said_once_with_its_first_cell(tmp_path):
    made = openpyxl.Workbook()
    for row in (["prompt", "completion"], ["a", 1234.5], ["b", 2.5], ["c", 7], ["d", datetime.date(2024, 3, 1)]):
        made.active.append(row)
    for cell, form in (("B2", "0.00E+00"), ("B3", "0.00E+00"), ("B4", '"No." 0'), ("B5", "d/m/yy")):
        made.active[cell].number_format = form
    made.active["A3"].number_format = '"text" 0'
    made.save(tmp_path / "a.xlsx")
    found, notes, _ = read(tmp_path / "a.xlsx")
    assert [row.record["completion"] for row in found] == ["1234.5", "2.5", "7", "2024-03-01"]
    assert notes == [
        "the number format '0.00E+00' is not followed, its numbers are read as General; first: B2",
        "the number format '\"No.\" 0' is not followed, its numbers are read as General; first: B4",
    ]


def test_the_line_ends_that_excel_writes_are_no_text(tmp_path):
    [row] = read(book(tmp_path / "a.xlsx", [["prom_x0070_t", "completion"], ["one_x000D_\ntwo", "a_x000D_b"]]))[0]
    assert row.record == {"prompt": "one\ntwo", "completion": "a\nb"}


def test_other_sheets_are_named(tmp_path):
    path = book(tmp_path / "a.xlsx", [["prompt", "completion"], ["a", "b"]], title="rows", others=["notes", "old"])
    found, notes, _ = read(path)
    assert len(found) == 1
    assert notes == ["the sheet 'rows' is read; not read: 'notes', 'old'"]


def test_errors_and_formulas_without_a_value_are_told_by_their_cell(tmp_path):
    made = openpyxl.Workbook()
    rows = [["prompt", "completion"], ["a", "=1+1"], ["b", "ok"], ["#REF!", "c"], ["d", "e", "f"], ["g"]]
    for row in rows:
        made.active.append(row)
    made.active["B3"] = ArrayFormula("B3", "=A3")
    made.save(tmp_path / "a.xlsx")
    found, _, _ = read(tmp_path / "a.xlsx")
    assert [row.number for row in found] == [2, 3, 4, 5, 6]
    said = {row.number: row.refusal.what for row in found if isinstance(row, BrokenRow)}
    assert said == {
        2: "cell B2 holds a formula whose value is not in the file",
        3: "cell B3 holds a formula whose value is not in the file",
        4: "cell A4 holds the error #REF!",
        5: "column C has a value and no name in the header",
    }
    assert found[-1] == RawRow(6, {"prompt": "g", "completion": ""})


def test_a_formula_gives_the_value_that_was_saved_with_it(tmp_path):
    path = book(tmp_path / "plain.xlsx", [["prompt", "completion"], ["a", 2]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"<v>2</v>", b"<f>1+1</f><v>2</v>"))
    [row] = read(tmp_path / "a.xlsx")[0]
    assert row.record == {"prompt": "a", "completion": "2"}


def test_what_is_no_spreadsheet_is_told(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"\xd0\xcf\x11\xe0 old or locked")
    with pytest.raises(DataError, match="locked by a password"):
        read(tmp_path / "a.xlsx")
    whole = book(tmp_path / "b.xlsx", [["prompt"], ["a"]]).read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:-200], whole[: len(whole) // 2], b"prompt,completion\n"):
        (tmp_path / "a.xlsx").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as \.xlsx"):
            read(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="the sheet is empty"):
        read(book(tmp_path / "c.xlsx", [[None]]))
    with pytest.raises(DataError, match="names a column twice: 'a'"):
        read(book(tmp_path / "d.xlsx", [["a", "a"], [1, 2]]))


def test_an_empty_sheet_among_several_files_has_no_rows(tmp_path):
    book(tmp_path / "a.xlsx", [[None]])
    book(tmp_path / "b.xlsx", [["prompt", "completion"], ["a", "b"]])
    opened = open_source(SourceConfig(path=str(tmp_path), format="completion"))
    assert [len(list(read_part(opened, part)[0])) for part in range(2)] == [0, 1]


def test_a_column_without_a_name_has_its_letter(tmp_path):
    [row] = read(book(tmp_path / "a.xlsx", [["prompt", None, "completion"], ["a", "b", "c"]]))[0]
    assert row.record == {"prompt": "a", "B": "b", "completion": "c"}
