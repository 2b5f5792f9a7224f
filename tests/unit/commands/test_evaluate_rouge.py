"""ROUGE of a run: what is written is what the package says, both models answer once, and nothing is left half done."""

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest
from rouge_score.rouge_scorer import RougeScorer

from fledge.commands import answers as training_answers
from fledge.commands import evaluate as evaluation
from fledge.commands.evaluate import Question, evaluate
from fledge.commands.train import train
from fledge.config.load import load_recipe
from fledge.errors import FledgeError
from fledge.evaluation import answers as module
from fledge.evaluation import generate as generation

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ASKED = Question(max_rows=12, rouge=True, max_new_tokens=8)
ALPACA = {"fmt": "alpaca", "data__max_length": 256, "train__max_steps": 40}
"""A run that learns to answer in words, some of them right."""


@pytest.fixture
def run(trained_run, tmp_path) -> Path:
    """A copy, so that each test finds the run as the training left it."""
    return Path(shutil.copytree(trained_run("llama", **ALPACA), tmp_path / "run"))


@pytest.fixture
def asking(trained_run) -> Path:
    """A run whose recipe asks for both measures."""
    settings = {"evaluate__exact_match": True, "evaluate__rouge": True, "evaluate__max_new_tokens": 8}
    return trained_run("llama", evaluate__max_rows=12, **ALPACA, **settings)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().split("\n")[:-1]]


def plain_rouge(rows: list[dict], who: str) -> dict[str, float]:
    scorer = RougeScorer(list(METRICS), use_stemmer=True)
    found = [scorer.score(row["reference"], row[who]) for row in rows]
    return {name: fmean(scores[name].fmeasure for scores in found) for name in METRICS}


def test_the_numbers_are_the_packages_on_what_was_written_to_the_last_digit(run):
    result = evaluate(run, question=ASKED)
    rows = lines(result.folder)
    assert len(rows) == result.answered == 12
    judged = {f"{who}_{what}" for who in ("base", "tuned") for what in ("rouge", "is_complete")}
    assert set(rows[0]) == {"row", "prompt", "reference", "base", "tuned"} | judged
    for who, found in (("base", result.rouge.base), ("tuned", result.rouge.tuned)):
        assert found.means == plain_rouge(rows, who)
        assert all(fmean(row[f"{who}_rouge"][name] for row in rows) == found.means[name] for name in METRICS)
    assert result.rouge.tuned.means["rouge1"] > result.rouge.base.means["rouge1"]
    assert result.rouge.difference.intervals["rouge1"][0] > 0


def test_what_is_printed_for_machines_has_the_promised_form_and_keeps_the_older_one(run):
    result = evaluate(run, question=ASKED)
    told = result.as_json()
    assert told == json.loads((result.folder / "result.json").read_text())
    for name in ("loss", "perplexity"):
        assert told[name] == {"base": told["base"][name], "tuned": told["tuned"][name]}
    assert {who: list(told["rouge"][who]) for who in told["rouge"]} == {"base": [*METRICS], "tuned": [*METRICS]}
    for part in ("base", "tuned", "difference"):
        assert all(low <= high for low, high in told["rouge_intervals"][part].values())
    without = evaluate(run, question=Question(max_rows=2)).as_json()
    assert not {"rouge", "rouge_intervals", "answered", "exact_match"} & set(without)


def test_two_evaluations_are_the_same_to_the_byte(run):
    evaluate(run, question=ASKED)
    files = [(run / "evaluation" / name) for name in ("result.json", "predictions.jsonl")]
    before = [file.read_bytes() for file in files]
    evaluate(run, question=ASKED)
    assert [file.read_bytes() for file in files] == before


def test_exact_match_and_rouge_share_one_answer_of_each_model(run, monkeypatch):
    asked, real = [], module.generate
    monkeypatch.setattr(
        module, "generate", lambda *args, **more: asked.append(len(more["prompts"])) or real(*args, **more)
    )
    result = evaluate(run, question=Question(max_rows=5, exact_match=True, rouge=True, max_new_tokens=4))
    assert asked == [5, 5]
    rows = lines(result.folder)
    assert result.tuned.exact_match == fmean(row["tuned_is_exact"] for row in rows)
    assert result.rouge.tuned.means == plain_rouge(rows, "tuned")


def test_the_test_set_is_measured_where_it_is_asked_for(trained_run, tmp_path):
    rows = trained_run("llama").parent / "rows.jsonl"
    shared = trained_run("llama", data__test={"path": str(rows), "format": "completion"})
    run = Path(shutil.copytree(shared, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")))
    result = evaluate(run, question=Question("test", max_rows=3, rouge=True, max_new_tokens=4))
    assert result.folder == run / "evaluation/test" and len(lines(result.folder)) == 3


def test_progress_counts_the_answers_of_both_models(run):
    told: list[tuple[int, int]] = []
    evaluate(run, question=ASKED, on_answers=lambda done, total: told.append((done, total)))
    assert told == [(12, 24), (24, 24)]


def test_an_evaluation_that_fails_midway_leaves_the_one_before_it_whole(run, monkeypatch):
    evaluate(run, question=ASKED)
    before = {path.name: path.read_bytes() for path in (run / "evaluation").iterdir()}
    calls, real = [], generation._run

    def failing(*arguments, **more):
        calls.append(1)
        if len(calls) > 1:
            raise FledgeError("the machine is on fire")
        return real(*arguments, **more)

    monkeypatch.setattr(generation, "_run", failing)
    with pytest.raises(FledgeError, match="on fire"):
        evaluate(run, question=Question(max_rows=2, rouge=True, max_new_tokens=2))
    assert {path.name: path.read_bytes() for path in (run / "evaluation").iterdir()} == before


def test_results_of_an_older_run_are_replaced_whole(run):
    evaluate(run, question=ASKED)
    (run / "evaluation/result.json").write_text('{"old": 1}')
    evaluate(run, question=Question(max_rows=2))
    assert not (run / "evaluation/predictions.jsonl").exists()
    assert "old" not in json.loads((run / "evaluation/result.json").read_text())


def test_beams_are_asked_for_by_the_question_or_by_the_recipe(trained_run, monkeypatch):
    seen = []
    real = evaluation.answer_rows

    def note(*arguments, **more):
        seen.append(more["sampling"].num_beams)
        return real(*arguments, **more)

    monkeypatch.setattr(evaluation, "answer_rows", note)
    run = trained_run("llama", evaluate__num_beams=2)
    for asked in (None, 3):
        evaluate(run, question=Question(max_rows=2, rouge=True, max_new_tokens=2, num_beams=asked))
    assert seen == [2, 2, 3, 3]


def test_a_training_that_asks_measures_before_and_after_as_evaluate_does(asking, tmp_path):
    summary = json.loads((asking / "summary.json").read_text())
    rows = lines(asking / "evaluation")
    assert len(rows) == 12 and {"base_is_exact", "tuned_rouge"} <= set(rows[0])
    assert summary["rouge_before"] == plain_rouge(rows, "base") and summary["rouge_after"] == plain_rouge(rows, "tuned")
    assert summary["exact_match_after"] == fmean(row["tuned_is_exact"] for row in rows)
    copy = shutil.copytree(asking, tmp_path / "run")
    result = evaluate(copy)
    assert lines(copy / "evaluation") == rows
    told = result.as_json()
    assert (told["rouge"]["base"], told["rouge"]["tuned"]) == (summary["rouge_before"], summary["rouge_after"])
    between = told["rouge_intervals"]
    assert [between[name] for name in ("base", "tuned", "difference")] == list(summary["rouge_intervals"].values())


def test_a_training_that_goes_on_keeps_the_bases_answers_and_ends_with_the_same_numbers(asking, tmp_path, monkeypatch):
    run = Path(shutil.copytree(asking, tmp_path / "run"))
    expected = json.loads((run / "summary.json").read_text())
    for left in ("summary.json", "evaluation/marks.json", "evaluation/predictions.jsonl"):
        (run / left).unlink()
    asked, real = [], training_answers.answer_rows
    monkeypatch.setattr(training_answers, "answer_rows", lambda *args, **more: asked.append(1) or real(*args, **more))
    summary = train(load_recipe(run / "recipe.yaml", [f"output.dir={run}"])).summary
    assert asked == [1]
    names = [name for name in expected if name.startswith(("exact", "rouge", "adapter"))]
    assert len(names) == 8 and [summary[name] for name in names] == [expected[name] for name in names]
    assert lines(run / "evaluation") == lines(asking / "evaluation")


def test_a_training_that_does_not_ask_writes_no_answers(trained_run):
    run = trained_run("llama")
    assert not (run / "evaluation/answers_before.json").exists()
    assert not [name for name in json.loads((run / "summary.json").read_text()) if "rouge" in name]
