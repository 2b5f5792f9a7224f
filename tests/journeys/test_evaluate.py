"""The base that comes with Fledge learns the quickstart's task, and ROUGE says so, from the command line."""

import json
from pathlib import Path
from statistics import fmean

import pytest
from rouge_score.rouge_scorer import RougeScorer

from tests.runs import fledge

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_the_quickstart_is_measured_by_rouge_from_the_recipe_to_the_last_number(tmp_path):
    run = tmp_path / "run"
    changes = ["train.max_steps=60", "evaluate.rouge=true", "evaluate.max_rows=32", f"output.dir={run}"]
    summary = json.loads(fledge("train", str(ROOT / "recipes/quickstart.yaml"), *changes, "--json").stdout)["summary"]
    assert summary["rouge_after"]["rouge1"] > summary["rouge_before"]["rouge1"] + 0.3
    low, high = summary["rouge_intervals"]["difference"]["rouge1"]
    assert 0 < low < high
    phases = summary["phases"]
    assert {"loading", "check", "answers", "steps", "validation", "saving"} <= set(phases)
    assert all(phase["seconds"] > 0 for phase in phases.values())
    peaks = [phase["peak_memory_bytes"] for phase in phases.values()]
    assert max(peak for peak in peaks if peak is not None) == summary["peak_memory_bytes"]

    told = json.loads(fledge("evaluate", str(run), "--json").stdout)
    rows = [json.loads(line) for line in (run / "evaluation/predictions.jsonl").read_text().split("\n")[:-1]]
    assert len(rows) == told["answered"] == 32
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    for who, moment in (("base", "before"), ("tuned", "after")):
        found = [scorer.score(row["reference"], row[who]) for row in rows]
        means = {name: fmean(scores[name].fmeasure for scores in found) for name in scorer.rouge_types}
        assert told["rouge"][who] == means == summary[f"rouge_{moment}"]

    shown = fledge("evaluate", str(run), "--max-rows", "8", "--num-beams", "2", "--show", "1")
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("rougeLsum ")]
    assert line.count("[") == 3 and "+" in line
    assert "Traceback" not in shown.stderr and "absl" not in shown.stderr
