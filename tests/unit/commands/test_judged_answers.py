"""What is not a whole, exact answer is counted and told, wherever answers are judged."""

import json
import shutil
from pathlib import Path

import pytest

from fledge.cli.main import run as fledge
from fledge.commands.answers import _remembered
from fledge.commands.evaluate import Question, evaluate
from fledge.commands.train import train
from fledge.events import Notice
from fledge.rundir import read_events
from tests.runs import load, recipe_dict
from tests.tiny_models import tiny_folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture
def cut(trained_run) -> Path:
    """A run whose answers are cut at one token, before the token that would end them."""
    asked = {"evaluate__exact_match": True, "evaluate__rouge": True, "evaluate__max_new_tokens": 1}
    return trained_run("llama", train__max_steps=40, **asked)


def test_a_training_counts_the_answers_that_were_cut_and_says_so(cut):
    summary = json.loads((cut / "summary.json").read_text())
    assert summary["answered"] == summary["cut_answers_before"] == summary["cut_answers_after"] == 48
    assert summary["exact_match_after"] == 0 and summary["references_lacking_characters"] == 0
    assert not any(line["tuned_is_complete"] or line["tuned_is_exact"] for line in lines(cut / "evaluation"))
    told = [event["text"] for event in read_events(cut / "events.jsonl") if event["event"] == "notice"]
    (words,) = [text for text in told if "of the tuned model were cut" in text]
    assert words == (
        "48 of 48 answers of the tuned model were cut before they ended, at 1 tokens or where the base has no more "
        "positions: none of them counts as exact"
    )


def test_an_evaluation_counts_them_in_its_table_and_in_its_result(cut, tmp_path, capsys):
    run = Path(shutil.copytree(cut, tmp_path / "run"))
    assert fledge(["train", str(run / "recipe.yaml"), f"output.dir={run}"]) == 0
    assert "answers cut " in capsys.readouterr().out
    assert fledge(["evaluate", str(run)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert ["cut", "answers", "48", "48"] in [line.split() for line in shown]
    assert any("48 of 48 answers of the tuned model were cut" in line for line in shown)
    result = json.loads((run / "evaluation/result.json").read_text())
    assert result["cut_answers"] == {"base": 48, "tuned": 48} and result["max_new_tokens"] == 1
    longer = evaluate(run, question=Question(max_new_tokens=16))
    assert longer.folder == run / "evaluation" and longer.marks.cut[1] < 48
    found = lines(longer.folder)
    assert longer.tuned.exact_match == sum(line["tuned_is_exact"] for line in found) / 48
    assert not any(line["tuned_is_exact"] > line["tuned_is_complete"] for line in found)


def test_answers_of_added_tokens_are_told_apart_and_shown(tmp_path, capsys):
    words = ("<yes>", "<no>")
    rows = tmp_path / "rows.jsonl"
    body = [{"prompt": f"is it {n} =", "completion": words[n % 2]} for n in range(12)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in body))
    changes = {"data__validation": {"path": str(rows), "format": "completion"}, "data__new_special_tokens": [*words]}
    changes |= {"train__max_steps": 12, "evaluate__exact_match": True, "evaluate__max_new_tokens": 6}
    train(load(tmp_path, recipe_dict(tiny_folder("llama", tmp_path / "base"), rows, tmp_path / "run", **changes)))
    found = lines(tmp_path / "run/evaluation")
    assert [row["reference"] for row in found] == [""] * 12
    assert [row["reference_with_special_tokens"] for row in found] == [words[n % 2] for n in range(12)]
    wrong = [row for row in found if row["tuned_with_special_tokens"] != row["reference_with_special_tokens"]]
    assert any(row["tuned"] == row["reference"] for row in wrong), "without special tokens these would look right"
    assert not any(row["tuned_is_exact"] for row in wrong)
    assert all(row["tuned_is_exact"] == row["tuned_is_complete"] for row in found if row not in wrong)
    assert fledge(["evaluate", str(tmp_path / "run"), "--show", "2"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("reference")] == [
        "reference  <yes>",
        "reference  <no>",
    ]


def test_what_an_older_fledge_did_not_note_of_the_bases_answers_is_said(tmp_path):
    told: list[Notice] = []
    (tmp_path / "old.json").write_text(json.dumps([{"row": 0, "prompt": "q", "reference": "a", "answer": "b"}]))
    (one,) = _remembered(tmp_path / "old.json", told.append)
    assert (one.answer, one.is_complete) == ("b", True)
    assert [notice.text for notice in told] == [
        "an older Fledge wrote the base's answers: which of them were cut is not known"
    ]


def test_rows_with_several_references_are_judged_by_the_best_and_by_the_mean_of_all(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    body = [{"prompt": f"say {n} =", "one": "alpha beta", "two": "never said", "three": "gamma"} for n in range(8)]
    body += [{"prompt": f"tell {n} =", "one": "alpha beta"} for n in range(4)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in body))
    source = {"path": str(rows), "format": "completion"}
    # trained on the first; judged with the one that is right second in the list
    changes = {"data__train": {**source, "completion": "one"}}
    changes["data__validation"] = {**source, "completion": ["two", "one", "three"]}
    changes |= {"train__max_steps": 40, "evaluate__exact_match": True, "evaluate__rouge": True}
    changes |= {"evaluate__max_new_tokens": 16, "data__invalid_rows": "drop"}
    recipe = load(tmp_path, recipe_dict(tiny_folder("llama", tmp_path / "base"), rows, tmp_path / "run", **changes))
    train(recipe)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["answered"] == 12 and summary["rows_with_several_references"] == 8
    mean = (8 / 3 + 4) / 12
    assert summary["exact_match_after"] == 1 and summary["exact_match_mean_after"] == pytest.approx(mean)
    assert summary["rouge_after"]["rouge1"] == 1 and summary["rouge_mean_after"]["rouge1"] == pytest.approx(mean)
    found = lines(tmp_path / "run/evaluation")
    assert not any("other_references" in row for row in found[8:]) and all(row["tuned_is_exact"] for row in found)
    assert all(row["other_references"] == ["alpha beta", "gamma"] and row["tuned_is_exact"] for row in found[:8])
    capsys.readouterr()
    assert fledge(["evaluate", str(tmp_path / "run"), "--show", "0"]) == 0
    shown = capsys.readouterr().out
    assert "8 rows have several references" in shown
    told = [line.split() for line in shown.splitlines()]
    assert ["exact", "match", "0.0%", "100.0%"] in told and ["mean", "of", "all", "0.0%", "55.6%"] in told
    assert sum(line[:1] == ["rouge1"] for line in told) == 2
    result = json.loads((tmp_path / "run/evaluation/result.json").read_text())
    assert result["exact_match_mean"]["tuned"] == pytest.approx(mean) and result["rouge"]["tuned"]["rouge1"] == 1
    assert result["rouge_mean"]["tuned"]["rouge1"] == pytest.approx(mean)
