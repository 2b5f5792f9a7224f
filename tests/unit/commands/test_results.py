"""A quick look at a run is kept beside a fuller result, never in its place; an option without an effect is refused."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fledge.cli.main import run as fledge
from fledge.commands import evaluate as module
from fledge.commands.evaluate import Question, evaluate
from fledge.commands.results import Extent, place_of
from fledge.errors import FledgeError

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


@given(st.lists(extents(), min_size=1, max_size=8))
def test_no_order_of_evaluations_loses_anything(tmp_path_factory, asked):
    folder, nothing, kept = tmp_path_factory.mktemp("results"), Extent(0), dict[Path, Extent]()
    for extent in asked:
        place, fuller = place_of(extent, folder, trained=nothing)
        assert (fuller is None) == (place == folder)
        place.mkdir(exist_ok=True)
        tuned = {"loss": 1.0} | dict.fromkeys(extent.measures, 0.0)
        body = {"rows": extent.rows, "tuned": tuned}
        if extent.measures:
            body |= {"max_new_tokens": extent.max_new_tokens, "num_beams": extent.num_beams}
        (place / "result.json").write_text(json.dumps(body))
        kept[place] = extent
    for extent in asked:
        assert any(one.covers(extent) for one in kept.values()), (extent, kept)


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
