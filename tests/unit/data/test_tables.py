"""Tables: what is read is what csv.reader reads, and of a damaged table every line is in a row or told as broken."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.config.data import DataConfig, SourceConfig
from fledge.data.pipeline import prepare_training
from fledge.data.readers.rows import open_source, read_part
from fledge.data.rows import BrokenRow, RawRow
from fledge.errors import DataError
from tests.unit.data.tiny import gpt_like


def read(path: Path, **options):
    source = SourceConfig.model_validate({"path": str(path), "format": "completion", **options})
    opened = open_source(source)
    return [row for part in range(len(opened.files)) for row in read_part(opened, part)[0]], opened


def records(path: Path, **options):
    rows, _ = read(path, **options)
    assert all(isinstance(row, RawRow) for row in rows), rows
    return [row.record for row in rows]


def written(folder: Path, text: str, name: str = "a.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


cells = st.text(st.sampled_from('ab ,;\t"\n\r\u2028é'), max_size=8)
tables = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), max_size=8))


@settings(deadline=None)
@given(rows=tables, delimiter=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n"]), quotes=st.booleans())
def test_a_well_formed_table_reads_exactly_as_csv_reads_it(tmp_path_factory, rows, delimiter, end, quotes):
    header = [f"column {number}" for number in range(len(rows[0]) if rows else 2)]
    stream = io.StringIO()
    has_returns = any("\r" in cell for row in rows for cell in row)  # which the csv module leaves without quotes
    quoting = csv.QUOTE_ALL if quotes or has_returns else csv.QUOTE_MINIMAL
    csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([header, *rows])
    path = written(tmp_path_factory.mktemp("table"), stream.getvalue())
    reader = csv.reader(io.StringIO(stream.getvalue(), newline=""), delimiter=delimiter)
    expected = [dict(zip(header, row, strict=True)) for row in list(reader)[1:] if row]
    assert records(path, delimiter=delimiter) == expected


damage = st.sampled_from(['"', ",", "\n", '""', '",', ',"', "x"])


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.text(st.sampled_from('ab ,"\n'), max_size=6), min_size=2, max_size=2), max_size=12),
    hits=st.lists(st.tuples(st.floats(0, 1), damage, st.booleans()), max_size=4),
)
def test_random_damage_never_loses_a_line_unsaid(tmp_path_factory, rows, hits):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    body = stream.getvalue()
    for place, text, replaces in hits:
        position = round(place * len(body))
        body = body[:position] + text + body[position + replaces :]
    path = written(tmp_path_factory.mktemp("damaged"), f"a,b\n{body}")
    found, _ = read(path)
    lines = f"a,b\n{body}".split("\n")
    explained: set[int] = set()
    for row in found:
        assert row.number not in explained, "a line is in one row alone"
        last = row.number
        if isinstance(row, RawRow):
            last += sum(value.count("\n") for value in row.record.values())
        explained.update(range(row.number, last + 1))
    assert [row.number for row in found] == sorted(row.number for row in found)
    lost = [n for n, line in enumerate(lines, 1) if n > 1 and line.strip("\r") and n not in explained]
    assert not lost, (body, found)


def test_an_open_quote_costs_its_own_line_and_no_other(tmp_path):
    lines = [f"question {number},answer {number}" for number in range(2, 400)]
    lines[50] = '"oh she said,answer 52'
    lines[200] = 'question 202,"answer, with a quote 202'
    path = written(tmp_path, "\n".join(["prompt,completion", *lines]) + "\n")
    rows, _ = read(path)
    broken = [row.number for row in rows if isinstance(row, BrokenRow)]
    assert broken == [52, 202]
    assert [row.number for row in rows] == list(range(2, 400))
    source = {"path": str(path), "format": "completion"}
    data = DataConfig.model_validate({"train": source, "invalid_rows": "drop"})
    ledger = prepare_training(data, gpt_like(), seed=0, progress=lambda done, total: None).ledger
    assert (ledger.rows_read, ledger.rows_kept, ledger.dropped_by_reason()) == (398, 396, {"invalid": 2})


def test_an_open_quote_that_a_later_quoted_value_closes_is_told_where_it_opens(tmp_path):
    text = 'a,b\n1,2\n"3,4\n5,6\n7,"8, eight"\n9,10\n'
    rows, _ = read(written(tmp_path, text))
    assert [(row.number, isinstance(row, RawRow)) for row in rows] == [
        (2, True), (3, False), (4, True), (5, True), (6, True)
    ]  # fmt: skip
    assert rows[1].refusal.what == ("broken CSV: a quote that is opened here closes in the middle of a value in line 5")
    assert rows[3].record == {"a": "7", "b": "8, eight"}


def test_prose_inside_a_broken_value_is_never_taken_for_a_row(tmp_path):
    text = 'a,b\n"q1","one\nred, blue\nsays "hi", there\ngreen, too"\n"q2","two"\n'
    rows, _ = read(written(tmp_path, text))
    assert [row.record for row in rows if isinstance(row, RawRow)][-1:] == [{"a": "q2", "b": "two"}]
    assert not any(isinstance(row, RawRow) and row.record["a"] in ("red", 'says "hi"') for row in rows)
    ragged = 'a,b\nx,y\nq, comma,"line one\nred, blue\nline three"\nz,w\n'
    rows, _ = read(written(tmp_path, ragged))
    assert [row.number for row in rows if isinstance(row, RawRow)] == [2, 6]
    assert [row.number for row in rows if isinstance(row, BrokenRow)] == [3, 4, 5]
    assert "in a row of 3 lines" in rows[1].refusal.what
    assert "belongs to the broken row that begins in line 3" in rows[2].refusal.what


def test_a_carriage_return_without_quotes_is_told(tmp_path):
    rows, _ = read(written(tmp_path, "a,b\n1,x\ry\n2,z\n"))
    assert [(row.number, isinstance(row, RawRow)) for row in rows] == [(2, False), (3, True)]
    assert "carriage return" in rows[0].refusal.what


def test_a_value_that_holds_lines_like_rows_is_noted(tmp_path):
    lines = [f"q{number},a{number}" for number in range(20)]
    lines[3] = '"oh q3,a3'
    lines[12] = 'q12",a12'
    rows, opened = read(written(tmp_path, "\n".join(["prompt,completion", *lines]) + "\n"))
    assert len(rows) == 11
    [(name, note)] = opened.noted
    assert name == "a.csv" and "is a quote left open there? (line 5)" in note


def test_a_table_of_open_quotes_is_read_in_linear_time(tmp_path):
    rows, _ = read(written(tmp_path, "a,b\n" + '"x,y\n' * 20_001))
    assert len(rows) == 20_001


SEPARATED = {
    "semicolons": ("frage;antwort\nWas, wo?;Eine Krähe, dort\nx;y\n", "semicolons"),
    "tabs": ("frage\tantwort\nWas, wo?\tEine Krähe, dort\nx\ty\n", "tabs"),
    "commas": ('frage,antwort\n"Was, wo?","Eine Krähe, dort"\nx,y\n', None),
    "semicolons with commas in the header": ("frage, kurz;antwort\nWas, wo?;Krähe\nx;y\n", "semicolons"),
    "commas with semicolons in the rows": ("frage,antwort\na;b,c;d\ne;f,g;h\n", None),
    "one column": ("frage\nWas; wo\nx; y\n", None),
    "quoted": ('"frage";"antwort"\n"a;b";"c"\n', "semicolons"),
}


@pytest.mark.parametrize("name", SEPARATED)
def test_the_separator_is_found_and_said_where_it_is_no_comma(tmp_path, name):
    text, said = SEPARATED[name]
    rows, opened = read(written(tmp_path, text))
    assert all(isinstance(row, RawRow) for row in rows)
    assert [note for _, note in opened.noted] == ([f"values are separated by {said}"] if said else [])
    width = 1 if name == "one column" else 2
    assert all(len(row.record) == width for row in rows)


@pytest.mark.parametrize(
    ("text", "found"),
    [("a\tb\n1\t2\n", []), ("a,b\n1,2\n", ["values are separated by commas"]), ("a\n1\n", [])],
)
def test_a_tsv_has_tabs_unless_it_has_commas(tmp_path, text, found):
    rows, opened = read(written(tmp_path, text, "a.tsv"))
    assert [note for _, note in opened.noted] == found
    assert rows[0].record["a"] == "1"
    assert opened.files[0].counts_lines


def test_a_delimiter_that_is_given_is_taken(tmp_path):
    path = written(tmp_path, "a|b\n1;x|2,y\n")
    assert records(path, delimiter="|") == [{"a": "1;x", "b": "2,y"}]
    assert records(written(tmp_path, "a\tb\n1\t2\n"), delimiter="\\t") == [{"a": "1", "b": "2"}]
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder", "{}", "x.jsonl")
    with pytest.raises(DataError, match="no file is a csv or tsv"):
        read(tmp_path / "folder", delimiter=";")


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), (",", "commas"), ("|", "'|'"), ("\t", "tabs")])
@pytest.mark.parametrize("line", ["sep={}\n", '\ufeff"SEP={}"\r\n'])
def test_excels_first_line_names_the_separator_and_is_no_row(tmp_path, mark, name, line):
    path = written(tmp_path, f'{line.format(mark)}a{mark}b\nx{mark}y\n1{mark}"2\n3"\n"oh{mark}4\n5{mark}6\n')
    rows, opened = read(path)
    assert rows[:2] == [RawRow(3, {"a": "x", "b": "y"}), RawRow(4, {"a": "1", "b": "2\n3"})]
    assert isinstance(rows[2], BrokenRow) and rows[2].number == 6
    assert rows[3:] == [RawRow(7, {"a": "5", "b": "6"})]
    said = f"the first line (sep=) says that values are separated by {name}; it is followed and is no row"
    assert opened.noted == [("a.csv", said)]
    with pytest.raises(DataError, match=r"a\.csv:2: the header names a column twice"):
        read(written(tmp_path, f"{line.format(mark)}a{mark}a\n1{mark}2\n"))
    with pytest.raises(DataError, match="not even a header line"):
        read(written(tmp_path, line.format(mark)))


def test_the_delimiter_of_the_recipe_wins_over_the_first_line(tmp_path):
    path = written(tmp_path, "sep=;\na,b;c\n1,2;3\n")
    rows, opened = read(path, delimiter=",")
    assert rows == [RawRow(3, {"a": "1", "b;c": "2;3"})]
    said = "the first line (sep=) says semicolons, the source's delimiter says commas and is taken; the line is no row"
    assert opened.noted == [("a.csv", said)]


def test_columns_at_the_end_without_a_name_are_left_out_where_they_are_empty(tmp_path):
    rows, opened = read(written(tmp_path, "prompt,completion,, \na,b,,\nc,d, ,\n\ne,f,,x\ng,h\ni,j,,,\nk\n"))
    assert [row.number for row in rows] == [2, 3, 5, 6, 7, 8]
    read_rows = [row.record for row in rows if isinstance(row, RawRow)]
    assert read_rows == [{"prompt": p, "completion": c} for p, c in ("ab", "cd", "gh")]
    assert [row.refusal.what for row in rows if isinstance(row, BrokenRow)] == [
        "column 4 has a value and no name in the header",
        "a ragged line: 5 values where the header has 4 columns",
        "a ragged line: 1 value where the header has 4 columns",
    ]
    assert not opened.noted


def test_a_column_without_a_name_before_others_is_kept_under_its_number(tmp_path):
    [record] = records(written(tmp_path, ",prompt,,completion\n0,a,,b\n"))
    assert record == {"column 1 (no name)": "0", "prompt": "a", "column 3 (no name)": "", "completion": "b"}
    with pytest.raises(DataError, match="the header names no column"):
        read(written(tmp_path, ",,\n1,2,3\n"))


SPACED = 'quoted values have a space before them, as in "a", "b"; spaces before values are left out'


def test_quoted_values_may_have_a_space_before_them(tmp_path):
    text = 'prompt, completion, n\n"A", "B says ""hi"", then\n goes", 1\n"C","D", "2"\n"E, e", "F; f",  "3"\n'
    rows, opened = read(written(tmp_path, text.replace(", 1", ',  "1"')))
    assert [(row.number, row.record) for row in rows] == [
        (2, {"prompt": "A", "completion": 'B says "hi", then\n goes', "n": "1"}),
        (4, {"prompt": "C", "completion": "D", "n": "2"}),
        (5, {"prompt": "E, e", "completion": "F; f", "n": "3"}),
    ]
    assert opened.noted == [("a.csv", SPACED)]
    rows, opened = read(written(tmp_path, 'a;b\n"x"; "y, z"\n"open; "v"\n"w"; "x"\n'))
    assert rows[0].record == {"a": "x", "b": "y, z"} and rows[-1].record == {"a": "w", "b": "x"}
    assert [row.number for row in rows if isinstance(row, BrokenRow)] == [3]
    assert [note for _, note in opened.noted] == ["values are separated by semicolons", SPACED]


@pytest.mark.parametrize(
    "text",
    [
        'a,b\n"q", b\n"r", c\n"s","d"\n',  # a space before an answer is text
        'a,b\nq, "hm" she said\nr, "well"\n',
        'a,b\n" q"," b"\n"x, ""y""","z"\n',
        "a,b\n",
    ],
)
def test_spaces_before_values_are_text_unless_quotes_follow_nearly_all(tmp_path, text):
    rows, opened = read(written(tmp_path, text))
    assert [row.record for row in rows] == list(csv.DictReader(io.StringIO(text)))
    assert not opened.noted


def test_quotes_after_a_space_that_are_kept_as_text_are_said(tmp_path):
    rows, opened = read(written(tmp_path, 'a,b\n"q", b\n"r", c\n"s", "d"\n'))
    assert [row.record["b"] for row in rows] == [" b", " c", ' "d"']
    [(_, note)] = opened.noted
    assert "spaces and such quotes are kept as text" in note


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_the_line_ends_of_old_macs_part_lines(tmp_path, name):
    text = {"a.csv": 'a,b\r1,"2\r3"\r4,5\r', "a.jsonl": '{"a": "1", "b": "2\\r3"}\r\r{"a": "4", "b": "5"}\r'}[name]
    rows, _ = read(written(tmp_path, text, name))
    assert [(row.number, row.record) for row in rows] == [
        (2 if name == "a.csv" else 1, {"a": "1", "b": "2\r3"}),
        (4 if name == "a.csv" else 3, {"a": "4", "b": "5"}),
    ]


def test_a_header_with_capitals_is_told_with_its_columns_as_they_are_spelled(tmp_path):
    path = written(tmp_path, "\ufeffPrompt,Completion\na,b\n")
    source = {"path": str(path), "format": "completion"}
    with pytest.raises(DataError) as caught:
        prepare_training(DataConfig(train=source), gpt_like(), seed=0, progress=lambda done, total: None)
    assert "columns: {prompt: Prompt, completion: Completion}" in str(caught.value)
    assert records(path) == [{"Prompt": "a", "Completion": "b"}]


def test_a_very_wide_header_is_looked_at_once(tmp_path):
    header = ",".join(f"c{number}" for number in range(20_000))
    rows, _ = read(written(tmp_path, f"{header}\n{',' * 19_999}\n"))
    assert len(rows[0].record) == 20_000
    twice = ",".join(["c"] * 20_000)
    with pytest.raises(DataError) as caught:
        read(written(tmp_path, f"{twice}\n"))
    assert len(str(caught.value)) < 400


def swallowing(*, begin, inside):
    """A table with a value that is opened in line 4 and never closed, and some lines after it."""
    good = [f"question {number};answer {number}" for number in range(2, 60)]
    return "frage;antwort\n" + "\n".join([*good[:2], begin, *good[2:12], *inside, *good[12:]]) + "\n"


def test_each_line_after_an_open_quote_is_told_what_is_wrong_with_itself(tmp_path):
    inside = ["no answer", "yes; or no; or both", "fine;good", 'a ""doubled"" one;x']
    rows, _ = read(written(tmp_path, swallowing(begin='Was ist "Fläche"?;"Ein offener Wert', inside=inside)))
    broken = {row.number: row.refusal for row in rows if isinstance(row, BrokenRow)}
    assert [row.number for row in rows] == list(range(2, 65))
    assert {number: refusal.what for number, refusal in broken.items()} == {
        4: "a quote is opened and never closed",
        15: "a ragged line: 1 value where the header has 2 columns",
        16: "a ragged line: 3 values where the header has 2 columns",
        18: "broken CSV: a quote stands in the middle of a value",
    }
    assert broken[4].cure == "close the quote at the end of the value, or remove it"


@pytest.mark.parametrize("mended", ['Was ist "Fläche"?;"Ein offener Wert"', 'Was ist "Fläche"?;Ein offener Wert'])
def test_the_cure_of_an_open_quote_cures_and_brings_nothing_new(tmp_path, mended):
    inside = ["no answer", "fine;good"]
    before, _ = read(written(tmp_path, swallowing(begin='Was ist "Fläche"?;"Ein offener Wert', inside=inside)))
    after, _ = read(written(tmp_path, swallowing(begin=mended, inside=inside)))
    told = [(row.number, row.refusal.what) for row in before if isinstance(row, BrokenRow)]
    left = [(row.number, row.refusal.what) for row in after if isinstance(row, BrokenRow)]
    assert told == [(4, "a quote is opened and never closed"), *left]
    assert [row.number for row in after] == [row.number for row in before]


@pytest.mark.parametrize(
    ("line", "mended"),
    [
        ('x;"He said "hi" to me"', ('x;"He said ""hi"" to me"', "x;He said hi to me")),
        ('x;"a" b', ('x;"""a"" b"', "x;a b")),
    ],
)
def test_the_cure_of_quotes_inside_a_value_cures(tmp_path, line, mended):
    rows, _ = read(written(tmp_path, f"q;a\n1;2\n{line}\n3;4\n"))
    [broken] = [row for row in rows if isinstance(row, BrokenRow)]
    assert broken.refusal.cure.startswith("put the value in quotes and write each quote inside it twice")
    for each in mended:
        rows, _ = read(written(tmp_path, f"q;a\n1;2\n{each}\n3;4\n"))
        assert all(isinstance(row, RawRow) for row in rows) and len(rows) == 3


def test_a_header_with_an_open_quote_is_told_to_close_it(tmp_path):
    with pytest.raises(DataError) as caught:
        read(written(tmp_path, 'q;"a\n1;2\n'))
    assert caught.value.problems[0].cure == "close the quote at the end of the value, or remove it"
