"""A quick look at a run is kept beside a fuller result, never in its place; an option without an effect is refused."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from fledge.cli.main import run as fledge
from fledge.commands import evaluate as module
from fledge.commands.evaluate import Question, evaluate
from fledge.commands.results import Extent, place_of, put_aside, read_result
from fledge.errors import FledgeError
from tests.runs import write_rows

MEASURES = [(), ("exact_match",), ("rouge",), ("exact_match", "rouge")]


@pytest.fixture
def run(trained_run, tmp_path) -> Path:
    """A copy, so that each test finds the run as the training left it."""
    run = trained_run("llama", train__max_steps=3)
    return Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_fewer_rows_or_measures_go_beside_a_fuller_result_and_more_take_its_place(run, capsys):
    full = Question(exact_match=True, max_new_tokens=3, max_rows=6)
    assert evaluate(run, question=full).folder == run / "evaluation"
    before = files(run / "evaluation")
    assert set(before) == {"result.json", "predictions.jsonl"}
    quick = evaluate(run, question=Question(max_rows=2))
    fewer = evaluate(run, question=Question(exact_match=True, max_new_tokens=3, max_rows=2))
    shorter = evaluate(run, question=Question(exact_match=True, max_new_tokens=2, max_rows=6))
    assert [found.folder.name for found in (quick, fewer, shorter)] == [
        "rows-2-loss",
        "rows-2-exact_match-tokens-3-beams-1",
        "rows-6-exact_match-tokens-2-beams-1",
    ]
    assert {found.fuller for found in (quick, fewer, shorter)} == {run / "evaluation"}
    assert files(run / "evaluation") == before
    assert json.loads((quick.folder / "result.json").read_text()) == quick.as_json()
    assert quick.as_json()["fuller"] == str(run / "evaluation")
    assert fledge(["evaluate", str(run), "--max-rows", "2"]) == 0
    assert f"a fuller result lies in {run / 'evaluation'} and was left alone" in capsys.readouterr().out
    again = evaluate(run, question=Question(exact_match=True, max_new_tokens=4))
    assert (again.folder, again.fuller, again.rows) == (run / "evaluation", None, 48)


def test_the_same_question_replaces_its_result_and_leaves_those_on_other_rows(run):
    evaluate(run, question=Question("train", max_rows=2))
    for _ in range(2):
        assert evaluate(run, question=Question(max_rows=2)).folder == run / "evaluation"
    assert set(files(run / "evaluation")) == {"result.json"}
    assert evaluate(run, question=Question("train", max_rows=1)).folder == run / "evaluation/train/rows-1-loss"


def test_answers_that_the_training_wrote_are_not_taken_away_by_a_quick_look(trained_run, tmp_path):
    asking = trained_run("llama", train__max_steps=3, evaluate__exact_match=True, evaluate__max_new_tokens=2)
    run = Path(shutil.copytree(asking, tmp_path / "asking"))
    before = files(run / "evaluation")
    assert "predictions.jsonl" in before
    quick = evaluate(run, question=Question(exact_match=False))
    assert quick.folder == run / "evaluation/rows-48-loss"
    assert files(run / "evaluation") == before
    assert evaluate(run).folder == run / "evaluation"


def extents() -> st.SearchStrategy[Extent]:
    answered = st.builds(Extent, st.integers(1, 3), st.sampled_from(MEASURES[1:]), st.integers(1, 3), st.integers(1, 2))
    return answered | st.builds(Extent, st.integers(1, 3))


@given(st.lists(st.tuples(st.sampled_from(["ab" * 32, "cd" * 32]), extents()), min_size=1, max_size=8))
def test_no_order_of_evaluations_loses_anything(tmp_path_factory, asked):
    folder, nothing = tmp_path_factory.mktemp("results"), Extent(0)
    kept = dict[Path, tuple[str, Extent]]()
    for rows, extent in asked:
        found = place_of(extent, folder, trained=nothing, rows=rows)
        place = found.folder
        assert (found.fuller is None) == (place == folder)
        put_aside(found)
        if found.aside is not None:
            kept[found.aside] = kept.pop(place)
        place.mkdir(exist_ok=True)
        tuned = {"loss": 1.0} | dict.fromkeys(extent.measures, 0.0)
        body = {"rows": extent.rows, "tuned": tuned} | ({"rows_sha256": rows} if rows else {})
        if extent.measures:
            body |= {"max_new_tokens": extent.max_new_tokens, "num_beams": extent.num_beams}
        (place / "result.json").write_text(json.dumps(body))
        kept[place] = (rows, extent)
    for rows, extent in asked:
        assert any(same == rows and one.covers(extent) for same, one in kept.values()), (rows, extent, kept)
    for place, (rows, extent) in kept.items():
        body = json.loads((place / "result.json").read_text())
        assert (body.get("rows_sha256", ""), body["rows"]) == (rows, extent.rows)


def with_test(run: Path, rows: Path) -> Path:
    """The run, whose recipe names `rows` as data.test."""
    recipe = run / "recipe.yaml"
    tree = YAML(typ="safe").load(recipe.read_text())
    tree["data"]["test"] = {"path": str(rows), "format": "completion"}
    recipe.write_text(json.dumps(tree))
    return run


def test_a_result_of_other_rows_is_put_aside_and_is_never_called_fuller(run, tmp_path, capsys):
    first, second = write_rows(tmp_path / "first.jsonl", count=6), write_rows(tmp_path / "second.jsonl", count=3)
    full = evaluate(with_test(run, first), question=Question("test", exact_match=True, max_new_tokens=2))
    told = full.as_json()
    assert told["source"] == [{"path": str(first), "split": "train"}] and len(told["rows_sha256"]) == 64
    before = files(full.folder)
    quick = evaluate(with_test(run, second), question=Question("test"))
    assert (quick.folder, quick.fuller) == (full.folder, None)
    assert quick.rows_sha256 != full.rows_sha256 and quick.as_json()["source"][0]["path"] == str(second)
    aside = full.folder / f"other-rows-{full.rows_sha256[:12]}-{full.extent.name}"
    assert files(aside) == before and set(files(full.folder)) == {"result.json"}
    assert quick.notices == (
        f"the result that lay in {full.folder} is of other rows or does not say of which: it is in {aside}",
    )
    again = write_rows(tmp_path / "copy.jsonl", count=3)
    assert evaluate(with_test(run, again), question=Question("test", max_rows=2)).fuller == full.folder, "the same rows"
    second.write_text(second.read_text().replace("one", "two"))
    assert fledge(["evaluate", str(with_test(run, second)), "--on", "test"]) == 0
    assert "note: the result that lay in" in capsys.readouterr().err


def test_a_result_that_does_not_say_of_which_rows_it_is_is_not_fuller(run):
    full = evaluate(run, question=Question(exact_match=True, max_new_tokens=2, max_rows=6))
    path = full.folder / "result.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in told.items() if name not in ("source", "rows_sha256")}))
    before = files(full.folder)
    quick = evaluate(run, question=Question(max_rows=2))
    assert (quick.folder, quick.fuller) == (full.folder, None)
    assert files(full.folder / f"other-rows-not-noted-{full.extent.name}") == before


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": 2, "tuned": 1}', '{"rows": 2, "rouge": {"tuned": 1}}'])
def test_a_result_that_cannot_be_understood_is_replaced(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    assert read_result(tmp_path) is None
    place = place_of(Extent(1), tmp_path, trained=Extent(0), rows="ab")
    assert (place.folder, place.fuller, place.aside) == (tmp_path, None, None)


@pytest.mark.parametrize(
    ("option", "question"),
    [
        (["--max-new-tokens", "4"], Question(max_new_tokens=4)),
        (["--num-beams", "2"], Question(num_beams=2)),
        (["--show", "3"], Question(show=3)),
        (["--show", "0"], Question(show=0)),
    ],
)
def test_an_option_for_answers_is_refused_where_none_are_generated(option, question, run, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_tuned", None)  # refused before anything heavy is loaded
        assert fledge(["evaluate", str(run), *option]) == 2
        told = capsys.readouterr().err
        assert f"fledge: {option[0]}: has no effect where no answers are generated" in told
        assert f"add --exact-match or --rouge, or leave {option[0]} out" in told
        with pytest.raises(FledgeError, match="no effect"):
            evaluate(run, question=question)
    assert fledge(["evaluate", str(run), *option, "--exact-match", "--max-rows", "1", "--max-new-tokens", "2"]) == 0


def test_show_is_refused_beside_json_and_honoured_otherwise(run, capsys):
    asked = ["evaluate", str(run), "--exact-match", "--max-rows", "7", "--max-new-tokens", "2"]
    assert fledge([*asked, "--show", "1", "--json"]) == 2
    assert "--show: has no effect with --json" in capsys.readouterr().err
    for option, shown in ([], 5), (["--show", "2"], 2), (["--show", "0"], 0):
        assert fledge([*asked, *option]) == 0
        assert capsys.readouterr().out.count("\nreference  ") == shown
