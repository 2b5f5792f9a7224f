"""Where no row can be used, the one cure that is told gives rows when it is followed to the letter."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fledge.config.data import DataConfig
from fledge.config.document import read_value
from fledge.data.pipeline import prepare_training
from fledge.errors import DataError
from tests.cures import thawed
from tests.unit.data.tiny import CHATML, gpt_like


def prepare(source, **options):
    data = DataConfig.model_validate({"train": source, **options})
    return prepare_training(data, gpt_like(CHATML), seed=0, progress=lambda done, total: None)


def refused(source, **options):
    with pytest.raises(DataError) as caught:
        prepare(source, **options)
    [problem] = caught.value.problems
    return problem


def table(path, count=20, *, more=""):
    path.write_text("frage,antwort\n" + "".join(f"Frage {n}?,Antwort {n}.\n" for n in range(count)) + more)
    return str(path)


def columns_of(cure):
    found = re.fullmatch(r"write columns: (\{.*\}) in the source", cure)
    assert found, cure
    return thawed(read_value(found[1], ("x",), where="cure").tree)


@pytest.mark.parametrize("invalid_rows", ["drop", "error"])
@pytest.mark.parametrize(
    "source",
    [
        {"format": "chat", "columns": {"user": "frage", "assistant": "answer"}},
        {"format": "completion", "columns": {"prompt": "frage", "completion": "antwrot"}},
        {"format": "alpaca", "columns": {"instruction": "farge", "output": "antwort"}},
        {"format": "text", "columns": {"text": "antwrot"}},
    ],
)
def test_a_column_that_no_row_has_is_cured_by_the_first_message(tmp_path, source, invalid_rows):
    source = {"path": table(tmp_path / "faq.csv", more='torn,"open\n'), **source}
    if source["format"] == "chat":
        source["columns"]["assistant"] = "antwrot"
    problem = refused(source, invalid_rows=invalid_rows)
    assert "no column '" in problem.what and "present: 'frage', 'antwort'" in problem.what
    mended = source | {"columns": columns_of(problem.cure)}
    assert len(prepare(mended, invalid_rows="drop").train) == 20


def test_to_drop_is_advised_where_other_rows_are_left_and_only_there(tmp_path):
    source = {"path": table(tmp_path / "faq.csv"), "format": "completion"}
    columns = {"prompt": "frage", "completion": "antwort"}
    path = tmp_path / "rows.jsonl"
    for good in (0, 1, 3):
        rows = [{"prompt": "a", "completion": 2}] * 2 + [{"prompt": "a", "completion": "b"}] * good
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        cure = refused({"path": str(path), "format": "completion"}, invalid_rows="error").cure
        drop = "; or set data.invalid_rows: drop to leave such rows out and count them"
        assert cure == "write the value as text" + drop * bool(good)
    assert "invalid_rows" not in refused(source, invalid_rows="error").cure
    late = table(tmp_path / "late.csv", more="only one\n")
    told = refused({"path": late, "format": "completion", "columns": columns}, invalid_rows="error")
    assert told.cure.endswith("set data.invalid_rows: drop to leave such rows out and count them")


def test_a_cure_that_begins_with_or_is_never_told(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"image": "b", "text": "c"}\n{"text": 1}\n')
    cure = refused({"path": str(path), "format": "text"}, invalid_rows="error").cure
    assert cure and not cure.startswith("or ")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(16, 60), min_size=1, max_size=6),
    limit=st.integers(8, 12),
    overlong=st.sampled_from(["drop", "truncate"]),
    others=st.lists(st.sampled_from(["{broken", '{"prompt": "a", "completion": ""}']), max_size=3),
)
def test_the_length_that_is_told_lets_every_long_row_in(tmp_path, sizes, limit, overlong, others):
    rows = [json.dumps({"prompt": "word " * size, "completion": " yes"}) for size in sizes]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*rows, *others[: len(rows) - 1]]) + "\n")
    source = {"path": str(path), "format": "completion"}
    options = {"overlong": overlong, "invalid_rows": "drop"}
    cure = refused(source, max_length=limit, **options).cure
    found = re.fullmatch(r"set data\.max_length: (\d+), as long as the longest row is", cure)
    assert found, cure
    assert len(prepare(source, max_length=int(found[1]), **options).train) == len(rows)


@pytest.mark.parametrize(
    ("row", "source", "cure"),
    [
        ({"q": "a", "a": ""}, {"format": "chat", "columns": {"user": "q", "assistant": "a"}}, "'q', 'a'"),
        ({"prompt": "a", "completion": " "}, {"format": "completion"}, "'prompt', 'completion'"),
        ({"instruction": "a", "output": ""}, {"format": "alpaca"}, "'instruction', 'output'"),
    ],
)
def test_empty_columns_are_named(tmp_path, row, source, cure):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    problem = refused({"path": str(path), **source})
    assert problem.cure.startswith(f"columns read are {cure}: if others hold the text, write columns: {{")


def test_rows_that_are_all_marked_as_bad_have_a_cure(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b", "label": False}) + "\n")
    assert "column of labels" in refused({"path": str(path), "format": "completion"}).cure
