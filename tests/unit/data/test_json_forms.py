"""JSON as people save it: an array in a .jsonl, columns, Python literals, and what lies in the place of data."""

import gzip
import io
import json
import math
import zipfile

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.config.data import DataConfig, SourceConfig
from fledge.data.pipeline import prepare_training
from fledge.data.readers.columnwise import rows_of_columns
from fledge.data.readers.rows import open_source, read_part
from fledge.data.rows import TEXT_COLUMN, BrokenRow, RawRow
from fledge.errors import DataError
from tests.unit.data.tiny import gpt_like

ROWS = [{"prompt": "a", "completion": " b"}, {"prompt": "c's", "completion": None}]


def read(path):
    opened = open_source(SourceConfig(path=str(path), format="completion"))
    rows, _ = read_part(opened, 0)
    return list(rows), [note for _, note in opened.noted]


def test_an_array_in_a_file_of_lines_is_read_and_said(tmp_path):
    path = tmp_path / "a.jsonl"
    for indent in (None, 1):
        path.write_text(json.dumps(ROWS, indent=indent))
        rows, notes = read(path)
        assert [row.record for row in rows] == ROWS
        assert notes == ["the file is one JSON array, not one object a line; it is read as an array"]
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    assert read(tmp_path / "a.json")[1] == []


def test_lines_that_only_begin_like_an_array_stay_lines(tmp_path):
    for first in ("[1, 2]", "[", "[]", '[{"prompt": '):
        path = tmp_path / "a.jsonl"
        path.write_text(f"{first}\n{json.dumps(ROWS[0])}\n")
        rows, notes = read(path)
        assert isinstance(rows[0], BrokenRow) and rows[1] == RawRow(2, ROWS[0]), first
        assert not notes


COLUMNS = {
    "by number": {"prompt": {"0": "a", "1": "c's"}, "completion": {"0": " b", "1": None}},
    "lists": {"prompt": ["a", "c's"], "completion": [" b", None]},
    "rows by number": {"0": ROWS[0], "1": ROWS[1]},
}


@pytest.mark.parametrize("form", COLUMNS)
@pytest.mark.parametrize("indent", [None, 2])
def test_columns_are_read_as_rows_and_said(tmp_path, form, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(COLUMNS[form], indent=indent))
    rows, notes = read(path)
    assert [row.record for row in rows] == ROWS
    assert notes == ["the JSON holds columns, as pandas writes them by default; they are read as rows"]


def test_columns_in_a_file_of_lines_are_read_where_they_can_be_nothing_else(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(COLUMNS["by number"]))
    assert [row.record for row in read(path)[0]] == ROWS
    path.write_text('{"tags": ["a", "b"]}')
    assert read(path) == ([RawRow(1, {"tags": ["a", "b"]})], [])


def test_an_object_that_is_no_columns_is_not_taken_for_them():
    said = [{"role": "user", "content": "a"}]
    for value in ({}, {"messages": said}, {"a": ["x"], "b": ["x", "y"]}, {"a": "x"}, {"a": {"x": 1}}, [1], {"a": []}):
        assert rows_of_columns(value) is None, value


literals = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=6), literals, min_size=1, max_size=4), min_size=2, max_size=5))
def test_lines_that_python_wrote_are_read_as_what_they_say(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("literals") / "a.jsonl"
    first = {"it's": "a 'row'", "none": None}
    path.write_text("".join(f"{row!r}\n" for row in [first, *rows]), encoding="utf-8", errors="surrogatepass")
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    found, notes = read(path)
    assert [row.record for row in found] == [first, *rows]
    assert len(notes) == 1


def test_python_literals_are_told_once_for_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{{'prompt': 'q{n}', 'completion': ' a{n}', 'x': None}}\n" for n in range(200)))
    data = DataConfig.model_validate({"train": {"path": str(path), "format": "completion"}})
    for _ in range(2):  # the second time from the cache
        prepared = prepare_training(data, gpt_like(), seed=0, progress=lambda done, total: None)
        assert prepared.ledger.rows_kept == 200
        [line] = prepared.ledger.notices()
        assert line == (f"{path}: the lines are Python literals (single quotes, None), not JSON; they are read as such")


@pytest.mark.parametrize(
    "line",
    ["{'a': open('x')}", "{'a': __import__('os')}", "{'a': {1, 2}}", "{'a': b'x'}", "{'a': 1j}", "{'a': " + "[" * 5000,
     "{'a': " + "-" * 100_000 + "1}"],
)  # fmt: skip
def test_a_line_of_code_is_never_run_and_is_a_broken_row(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text("{'a': 'x'}\n" + line + "\n{'a': 'y'}\n")
    rows, _ = read(path)
    assert [isinstance(row, RawRow) for row in rows] == [True, False, True]


def test_a_python_line_in_a_file_of_json_is_told_with_its_cure(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "x"}\n' + "{'a': 'x'}\n")
    _, broken = read(path)[0]
    assert broken.refusal.cure == "the line is a Python literal: write it with json.dumps"


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow", "a.xlsx", "a.txt", "a.csv.gz"]
)
def test_a_git_lfs_pointer_is_called_what_it_is(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    opened = open_source(SourceConfig(path=str(tmp_path / name), format="text"))
    with pytest.raises(DataError, match="git-lfs pointer") as caught:
        list(read_part(opened, 0)[0])
    assert "git lfs pull" in str(caught.value)


def test_a_web_page_in_the_place_of_data_is_called_what_it_is(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n<!DOCTYPE html><html>")
    with pytest.raises(DataError, match="web page"):
        read(tmp_path / "a.jsonl")


def _sheet() -> bytes:
    stream = io.BytesIO()
    openpyxl.Workbook().save(stream)
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("rows.jsonl", "{}")
    return stream.getvalue()


def _parquet() -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), stream)
    return stream.getvalue()


PACKED = gzip.compress(b'{"text": "a"}\n', mtime=0)
UNDER_A_WRONG_NAME = [
    ("a.csv", PACKED, "is packed with gzip", "unpack it with gunzip, or name it a.csv.gz"),
    ("a.jsonl", PACKED, "is packed with gzip", "unpack it with gunzip, or name it a.jsonl.gz"),
    ("a.txt", PACKED, "is packed with gzip", "unpack it with gunzip, or name it a.txt.gz"),
    ("a.parquet", PACKED, "is packed with gzip", "unpack it with gunzip"),
    (
        "a.jsonl.gz",
        gzip.compress(PACKED, mtime=0),
        "inside of the gzip is packed with gzip once more",
        "unpack it with gunzip",
    ),
    ("a.csv", _sheet(), "is a spreadsheet (.xlsx), whatever its name says", "name it a.xlsx, or save it as .csv"),
    ("a.json.gz", _sheet(), "is a spreadsheet (.xlsx)", "name it a.xlsx, or save it as .csv"),
    ("a.jsonl", _zip(), "is a zip archive", "unpack it and name the file or folder inside"),
    ("a.csv.gz", _zip(), "is a zip archive", "unpack it and name the file or folder inside"),
    ("a.parquet", b"PK\x03\x04", "is a zip archive", "unpack it and name the file or folder inside"),
    ("a.csv", b"\xd0\xcf\x11\xe0\xa1", "is an old spreadsheet (.xls)", "save it as .xlsx without a password"),
    ("a.jsonl", b"\x28\xb5\x2f\xfd", "is packed with zstd", "unpack it"),
    ("a.jsonl", _parquet(), "is parquet, whatever its name says", "name it a.parquet"),
]


@pytest.mark.parametrize(("name", "content", "what", "cure"), UNDER_A_WRONG_NAME)
def test_a_file_under_a_wrong_name_is_called_what_it_is(tmp_path, name, content, what, cure):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    said = str(caught.value)
    assert what in said and cure in said and str(tmp_path / name) in said and "UTF-8" not in said


def test_text_that_only_begins_like_another_kind_is_text(tmp_path):
    for start in ("PAR1 is a kind of radar", "ARROW1", "BZh9"):
        (tmp_path / "a.txt").write_text(start)
        assert read(tmp_path / "a.txt")[0] == [RawRow(1, {TEXT_COLUMN: start})]


def test_objects_over_several_lines_are_told_how_to_be_written(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row, indent=1) for row in ROWS))
    with pytest.raises(DataError) as caught:
        read(path)
    assert "write each object on one line of its own" in str(caught.value)


def test_nan_is_read_and_is_an_empty_answer(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(
        gzip.compress(b'{"prompt": "q", "completion": NaN}\n{"prompt": "NaN", "completion": "NaN"}\n', mtime=0)
    )
    rows, _ = read(path)
    assert math.isnan(rows[0].record["completion"])
    data = DataConfig.model_validate({"train": {"path": str(path), "format": "completion"}})
    prepared = prepare_training(data, gpt_like(), seed=0, progress=lambda done, total: None)
    assert prepared.ledger.dropped_by_reason() == {"empty_completion": 1}
    assert gpt_like().text(prepared.train.row(0).input_ids) == "NaNNaN</s>"
