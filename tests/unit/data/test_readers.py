"""Readers: what is read is what is in the file, and every error names its place."""

import gzip
import json
from pathlib import Path
from typing import Any, get_args

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fledge.config.data import SourceConfig
from fledge.config.paths import DATA_SUFFIXES
from fledge.data.readers.find import KINDS, Kind
from fledge.data.readers.rows import open_source, read_part
from fledge.data.rows import TEXT_COLUMN, BrokenRow, RawRow
from fledge.errors import DataError

HOSTILE = "\u2028\u2029\x85\x0b\x0c\x1c\ufeff\x00"
texts = st.text(st.characters(codec="utf-8"), max_size=40) | st.text(HOSTILE + 'a,"\n\r ', max_size=12)


def source(path: Path | str, form: str = "text") -> SourceConfig:
    return SourceConfig.model_validate({"path": str(path), "format": form})


def read_all(path: Path | str) -> list[RawRow | BrokenRow]:
    opened = open_source(source(path))
    return [row for part in range(len(opened.part_names())) for row in read_part(opened, part)[0]]


def records(path: Path | str) -> list[dict[str, Any]]:
    rows = read_all(path)
    assert all(isinstance(row, RawRow) for row in rows), rows
    return [row.record for row in rows if isinstance(row, RawRow)]


def problem(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        read_all(path)
    return str(caught.value)


@given(st.lists(st.dictionaries(texts, texts | st.none() | st.integers() | st.lists(texts), max_size=4), max_size=6))
def test_json_lines_give_back_every_record_with_its_line(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
    assert [(row.number, row.record) for row in read_all(path)] == list(enumerate(rows, 1))


@given(st.lists(st.dictionaries(texts, texts, max_size=4), min_size=1, max_size=6), st.booleans())
def test_json_array_gives_back_every_record(tmp_path_factory, rows, is_gzip):
    path = tmp_path_factory.mktemp("json") / ("a.json.gz" if is_gzip else "a.json")
    body = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    path.write_bytes(gzip.compress(body) if is_gzip else body)
    assert records(path) == rows


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_csv_gives_back_every_value_as_the_text_it_is(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    quoted = ["a,b"] + [",".join('"' + value.replace('"', '""') + '"' for value in row) for row in rows]
    path.write_bytes("\r\n".join(quoted).encode())
    assert records(path) == [{"a": first, "b": second} for first, second in rows]


def test_csv_numbers_and_na_stay_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,v\n007,NA\n1e3,true\n")
    assert records(path) == [{"id": "007", "v": "NA"}, {"id": "1e3", "v": "true"}]


@given(texts)
def test_text_file_is_one_row_to_the_letter(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("txt") / "a.txt"
    path.write_bytes(text.encode())
    [row] = records(path)
    assert row[TEXT_COLUMN] == text.removeprefix("\ufeff")


def test_byte_order_mark_is_no_part_of_the_text(tmp_path):
    bodies = {"a.jsonl": b'{"a": "x"}\n', "a.json": b'[{"a": "x"}]', "a.csv": b"a\nx\n"}
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + body)
        assert records(tmp_path / name) == [{"a": "x"}], name
    assert len(bodies) == 3


def test_json_lines_in_a_json_file_are_read_as_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert [(row.number, row.record) for row in read_all(path)] == [(2, {"a": 1}), (4, {"a": 2})]


def test_first_line_broken_in_a_json_file_of_lines_is_one_broken_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": \n{"a": 2}\n')
    first, second = read_all(path)
    assert isinstance(first, BrokenRow) and first.number == 1
    assert second == RawRow(2, {"a": 2})


@pytest.mark.parametrize(
    ("content", "number", "said"),
    [
        (b'{"a": 1}\n{"a": oops}\n{"a": 3}\n', 2, "broken JSON: Expecting value at column 7"),
        (b'{"a": 1}\n{"a": "b"\n{"a": 3}\n', 2, "broken JSON"),
        (b'{"a": 1}\n[1, 2]\n{"a": 3}\n', 2, "the row is a list, not an object"),
        (b'{"a": 1}\nnull\n{"a": 3}\n', 2, "the row is null, not an object"),
        (b'{"a": 1}\n{"a": "\xff"}\n{"a": 3}\n', 2, "not UTF-8: byte 0xff at offset 16 of the file"),
        (b'{"a": 1}\n' + b"[" * 100_000 + b'\n{"a": 3}\n', 2, "broken JSON"),
        (b'{"a": 1}\n{"a": ' + b"9" * 5000 + b'}\n{"a": 3}\n', 2, "broken JSON"),
    ],
)
def test_a_bad_line_of_json_lines_is_told_and_the_next_is_read(tmp_path, content, number, said):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    first, second, third = read_all(path)
    assert isinstance(second, BrokenRow)
    assert second.number == number
    assert said in second.refusal.what
    assert second.refusal.reason == "invalid"
    assert (first, third) == (RawRow(1, {"a": 1}), RawRow(3, {"a": 3}))


@pytest.mark.parametrize(
    ("content", "broken_at", "said"),
    [
        (b"a,b\n1,2\n3\n4,5\n", 3, "a ragged line: 1 value where the header has 2 columns"),
        (b"a,b\n1,2\n3,4,5\n4,5\n", 3, "a ragged line: 3 values where the header has 2 columns"),
        (b'a,b\n"1\n\n1",2\n3\n4,5\n', 5, "a ragged line"),
        (b"a,b\n1,2\n\xff,4\n4,5\n", 3, "not UTF-8: byte 0xff at offset 8 of the file"),
        (b'a,b\n1,2\n"3"x,4\n4,5\n', 3, "broken CSV"),
    ],
)
def test_a_bad_line_of_csv_is_told_and_the_next_is_read(tmp_path, content, broken_at, said):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    rows = read_all(path)
    [broken] = [row for row in rows if isinstance(row, BrokenRow)]
    assert broken.number == broken_at
    assert said in broken.refusal.what
    assert rows[-1] == RawRow(broken_at + 1, {"a": "4", "b": "5"})
    assert len(rows) == 3


hostile_bytes = st.binary(max_size=60) | st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"\r", b"a", b"\\ud800", b"\xff", b"\xef\xbb\xbf", b"\0"]
    ),
    max_size=20,
).map(b"".join)


@pytest.mark.parametrize(
    "name", ["a.json", "a.jsonl", "a.csv", "a.txt", "a.json.gz", "a.jsonl.gz", "a.csv.gz", "b.gz.txt.gz"]
)
@given(content=hostile_bytes, is_packed=st.booleans())
def test_no_bytes_bring_anything_but_rows_or_a_data_error(tmp_path_factory, name, content, is_packed):
    path = tmp_path_factory.mktemp("hostile") / name
    path.write_bytes(gzip.compress(content) if is_packed else content)
    try:
        rows = read_all(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        numbers = [row.number for row in rows]
        assert numbers == sorted(set(numbers))


def test_a_quote_never_closed_is_told_where_it_opens(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n"3,4\n5,6\n')
    rows = read_all(path)
    assert isinstance(rows[1], BrokenRow)
    assert rows[1].number == 3
    assert "never closed" in rows[1].refusal.what


def test_csv_rows_are_numbered_by_the_line_they_start_at(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a\n\n"x\ny"\nz\n')
    assert [row.number for row in read_all(path)] == [3, 5]


def test_csv_value_longer_than_the_csv_modules_own_limit_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "x" * 300_000 + ",y\n")
    assert len(records(path)[0]["a"]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'[{"a": 1},\n {"a": 2},\n {"a": oops}]', "a.json:3: broken JSON: Expecting value at column 8"),
        ("a.json", b'[{"a": 1},\n {"a": "\xe9t\xe9"}]', "a.json:2: not UTF-8: byte 0xe9 at offset 19 of the file"),
        ("a.json", b'{\n "data": [{"a": 1}]\n}', "the top level is an object, not an array of objects"),
        ("a.json", b'"hello"', "the top level is text"),
        ("a.json", b"", "the file is empty"),
        ("a.json", b"\xff\xfe[\x00]\x00", "UTF-16"),
        ("a.jsonl", b"\xff\xfe{\x00}\x00", "UTF-16"),
        ("a.csv", b"", "not even a header line"),
        ("a.csv", b"a,b,a\n1,2,3\n", "the header names a column twice: 'a'"),
        ("a.csv", b"a,\xff\n1,2\n", "a.csv:1: not UTF-8"),
        ("a.json.gz", b"[1, 2]", "cannot be unpacked"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20], "cannot be unpacked"),
        ("a.parquet", b"not parquet at all", "cannot be read as parquet"),
        ("a.xyz", b"x", "the suffix .xyz is not one that is read"),
    ],
)
def test_a_file_that_cannot_be_read_names_file_and_place(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    message = problem(tmp_path / name)
    assert said in message
    assert str(tmp_path / name) in message


def test_hint_names_the_array_inside_an_object(tmp_path):
    (tmp_path / "a.json").write_text('{\n "version": 1, "data": [{"a": 1}]\n}')
    assert "the array may be under 'data'" in problem(tmp_path / "a.json")


@pytest.mark.parametrize("start", ["", "\n \n", "\ufeff"])
def test_an_array_on_one_line_may_be_longer_than_a_line_of_rows(tmp_path, monkeypatch, start):
    rows = [{"a": number} for number in range(40)]
    monkeypatch.setattr("fledge.data.readers.lines.LONGEST_LINE", 100)
    (tmp_path / "a.json").write_text(start + json.dumps(rows))
    assert records(tmp_path / "a.json") == rows
    (tmp_path / "b.json").write_text(start + json.dumps({"data": rows}))
    assert "the array may be under 'data'" in problem(tmp_path / "b.json")


def test_array_element_that_is_no_object_is_a_broken_row(tmp_path):
    (tmp_path / "a.json").write_text('[{"a": 1}, "x"]')
    _, broken = read_all(tmp_path / "a.json")
    assert isinstance(broken, BrokenRow) and broken.number == 2


def test_text_that_is_not_utf8_is_a_broken_row(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ab\xffc")
    [row] = read_all(tmp_path / "a.txt")
    assert isinstance(row, BrokenRow)
    assert "offset 2" in row.refusal.what


def test_parquet_gives_back_its_rows(tmp_path):
    rows = [{"a": "x", "b": None}, {"a": "é", "b": 3}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert records(tmp_path / "a.parquet") == rows


def test_a_parquet_shard_without_rows_is_read_beside_others(tmp_path):
    table = pyarrow.Table.from_pylist([{"a": "x"}])
    for name, part in (("a.parquet", table.slice(0, 0)), ("b.parquet", table)):
        pyarrow.parquet.write_table(part, tmp_path / name)
    assert records(tmp_path) == [{"a": "x"}]


@pytest.mark.parametrize("name", ["part[1].parquet", "part?.parquet", "a::b.parquet", "x*.parquet"])
def test_a_parquet_file_is_no_pattern(tmp_path, name):
    for number, path in enumerate((tmp_path / name, tmp_path / "part1.parquet", tmp_path / "xy.parquet")):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"a": number}]), path)
    assert records(tmp_path / name) == [{"a": 0}]


def test_globs_and_folders_are_read_in_order_of_path(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl.gz", ".hidden/d.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        body = json.dumps({"from": name}).encode()
        path.write_bytes(gzip.compress(body) if name.endswith("gz") else body)
    (tmp_path / "README.md").write_text("no data")
    assert [row["from"] for row in records(tmp_path)] == ["a.jsonl", "b.jsonl", "sub/c.jsonl.gz"]
    assert [row["from"] for row in records(tmp_path / "*.jsonl")] == ["a.jsonl", "b.jsonl"]
    assert len(records(tmp_path / "**" / "*.jsonl*")) == 4
    assert "no file matches" in problem(tmp_path / "*.csv")


def test_a_folder_of_two_kinds_is_refused_because_rows_may_come_twice(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert "several kinds: 1 csv, 1 jsonl" in problem(tmp_path)


def test_a_folder_of_readmes_is_text(tmp_path):
    (tmp_path / "one.md").write_text("# One")
    (tmp_path / "two.md").write_text("# Two")
    assert [row[TEXT_COLUMN] for row in records(tmp_path)] == ["# One", "# Two"]


def test_markdown_and_plain_text_are_both_text(tmp_path):
    for name in ("README-a.md", "README-b.md", "requirements.txt"):
        (tmp_path / name).write_text(name)
    opened = open_source(source(tmp_path))
    assert [name for name, _ in opened.part_names()] == ["README-a.md", "README-b.md", "requirements.txt"]
    assert opened.skipped == ()


def test_files_of_a_folder_that_are_not_read_are_told(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "b.dat").write_text("x")
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".hidden").write_text("x")
    skipped = {path.name: why for path, why in open_source(source(tmp_path)).skipped}
    assert skipped == {
        "b.dat": "the suffix .dat is not one that is read",
        "c.jsonl": "a link to nothing",
        "README.md": "Markdown beside data files is taken for notes",
    }
    assert [path.name for path, _ in open_source(source(tmp_path / "*.jsonl")).skipped] == ["c.jsonl"]


def test_every_suffix_that_a_recipe_may_name_has_a_reader():
    assert set(KINDS) == set(DATA_SUFFIXES)
    assert set(KINDS.values()) == set(get_args(Kind))


def test_an_empty_folder_and_a_missing_file_are_told(tmp_path):
    assert "holds no file that can be read" in problem(tmp_path)
    (tmp_path / "train.jsonl").write_text("{}")
    message = problem(tmp_path / "trian.jsonl")
    assert "no such file or folder" in message
    assert f"did you mean {tmp_path / 'train.jsonl'}?" in message
    assert "nearest folder that exists" in problem(tmp_path / "nowhere" / "x" / "y.jsonl")


def test_same_names_in_different_folders_are_told_apart(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("x")
    assert [name for name, _ in open_source(source(tmp_path)).part_names()] == ["one/a.txt", "two/a.txt"]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    opened = open_source(source(path))
    opened.check_unchanged()
    path.write_text("{}\n{}\n")
    with pytest.raises(DataError, match="changed while it was read"):
        opened.check_unchanged()


def test_a_hub_id_that_the_working_directory_hides_is_refused(tmp_path, monkeypatch):
    (tmp_path / "someone" / "something").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    message = problem("someone/something")
    assert "lies in the working directory" in message
    assert "give its absolute path" in message


class Hub:
    """What load_dataset returns, as far as it is used."""

    _fingerprint = "abc"
    rows = [{"text": "one"}, {"text": "two"}]

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)


def test_a_hub_id_is_loaded_through_datasets_with_its_split(monkeypatch):
    asked = []

    def load(name, split):
        asked.append((name, split))
        return Hub()

    monkeypatch.setattr("fledge.data.readers.hub.datasets.load_dataset", load)
    opened = open_source(source("someone/something"))
    rows, total = read_part(opened, 0)
    assert [row.record for row in rows] == Hub.rows
    assert total == 2
    assert asked == [("someone/something", "train")]
    assert opened.content_digests() == ["abc"]
    assert opened.full_where(0, 2) == "someone/something, row 2"


def test_a_hub_id_out_of_reach_is_told_with_the_cure(monkeypatch):
    def load(name, split):
        raise ConnectionError(f"Couldn't reach {name!r}")

    monkeypatch.setattr("fledge.data.readers.hub.datasets.load_dataset", load)
    message = problem("someone/something")
    assert "the data set cannot be loaded" in message
    assert "is taken for a hub id" in message
