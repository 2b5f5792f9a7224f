"""What a recipe asks for is held against the steps that its rows give, and what early stopping leaves is the best."""

import json
from pathlib import Path

import pytest

from fledge.adapters.read import file_digest
from fledge.cli.main import run as fledge
from fledge.commands import train as module
from fledge.commands.evaluate import evaluate
from fledge.commands.train import train
from fledge.errors import FledgeError
from fledge.rundir import read_events
from tests.runs import load, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder


@pytest.fixture
def recipe(tmp_path):
    """A recipe of the tiny base on 48 rows, 8 in a step; those held out contradict what is trained."""
    base, rows = tiny_folder("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    others = tmp_path / "others.jsonl"
    body = [json.loads(line) for line in rows.read_text().splitlines()[:8]]
    others.write_text("".join(json.dumps(row | {"completion": " please one"}) + "\n" for row in body))
    held_out = {"path": str(others), "format": "completion"}

    def make(**changes) -> dict:
        return recipe_dict(base, rows, tmp_path / "run", **{"data__validation": held_out} | changes)

    return make


def notices(run: Path) -> list[str]:
    return [event["text"] for event in read_events(run / "events.jsonl") if event["event"] == "notice"]


def test_warm_up_beyond_the_steps_that_the_epochs_give_is_refused_and_its_cure_works(
    recipe, tmp_path, monkeypatch, capsys
):
    epochs = {"train__max_steps": None, "train__num_epochs": 2.0}
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_base", None)  # refused before the base is loaded
        path = write_recipe(tmp_path / "recipe.yaml", recipe(train__warmup_steps=13, **epochs))
        assert fledge(["train", str(path)]) == 2
    told = capsys.readouterr().err
    assert "fledge: train.warmup_steps: 13 steps of warm-up in a training of 12: the learning rate would never" in told
    (cure,) = [line.strip() for line in told.splitlines() if "write train.warmup_steps: 1," in line]
    assert cure == "write train.warmup_steps: 1, or more epochs (train.num_epochs)"
    assert train(load(tmp_path, recipe(train__warmup_steps=1, **epochs))).summary["steps"] == 12


def test_warm_up_that_takes_all_steps_is_kept(recipe, tmp_path):
    settings = {"train__max_steps": None, "train__num_epochs": 1.0, "train__warmup_steps": 6}
    train(load(tmp_path, recipe(**settings)))
    rates = [event["learning_rate"] for event in read_events(tmp_path / "run/events.jsonl") if event["event"] == "step"]
    assert rates == pytest.approx([1e-2 * step / 6 for step in range(1, 7)])


def test_early_stopping_leaves_the_best_adapter_and_says_so_everywhere(recipe, tmp_path, capsys):
    settings = {"evaluate__every_steps": 1, "evaluate__early_stopping_patience": 2, "train__max_steps": 30}
    answers = {"evaluate__exact_match": True, "evaluate__max_new_tokens": 3}
    path = write_recipe(tmp_path / "recipe.yaml", recipe(**settings, **answers))
    assert fledge(["train", str(path)]) == 0
    printed, run = capsys.readouterr().out, tmp_path / "run"
    summary, events = json.loads((run / "summary.json").read_text()), read_events(run / "events.jsonl")
    losses = [event["loss"] for event in events if event["event"] == "validated"]
    best = losses.index(min(losses)) + 1
    assert summary["stopped_early"] and summary["steps"] == best + 2 < 30
    assert summary["adapter_step"] == summary["best_step"] == best
    assert summary["validation_loss"] == summary["best_validation_loss"] == min(losses)
    noted = json.loads((run / "checkpoints/best/best.json").read_text())
    assert file_digest(run / "adapter") == summary["adapter_file_sha256"] == noted["adapter_file_sha256"]
    assert f"stopped early after step {best + 2} of 30: no better validation loss in 2 validations" in "".join(
        notices(run)
    )
    assert f"of step {best}, the best" in printed and "stopped early" in printed
    (finished,) = [event for event in events if event["event"] == "finished"]
    assert (finished["adapter_step"], finished["stopped_early"]) == (best, True)
    trained = (run / "evaluation/predictions.jsonl").read_bytes()
    found = evaluate(run)
    assert found.tuned.loss == pytest.approx(min(losses), rel=1e-5)
    assert (run / "evaluation/predictions.jsonl").read_bytes() == trained, "the best one answered after the training"


def test_with_patience_the_best_is_kept_also_where_the_last_step_is_reached_and_not_without(recipe, tmp_path):
    settings = {"evaluate__every_steps": 1, "train__max_steps": 6}
    summary = train(load(tmp_path, recipe(**settings))).summary
    best = summary["best_step"]
    assert best < 6 == summary["steps"] == summary["adapter_step"] and not summary["stopped_early"]
    patient = recipe(**settings, evaluate__early_stopping_patience=9, output__dir=str(tmp_path / "patient"))
    kept = train(load(tmp_path, patient)).summary
    assert (kept["adapter_step"], kept["steps"], kept["stopped_early"]) == (best, 6, False)
    assert kept["validation_loss"] == min(kept["validation_loss"], summary["validation_loss"])
    told = [text for text in notices(tmp_path / "patient") if "cannot stop early" in text]
    assert told and "is validated 5 times before its last step" in told[0]


def test_patience_that_can_end_a_training_is_not_remarked_upon(recipe, tmp_path):
    settings = {"evaluate__every_steps": 1, "evaluate__early_stopping_patience": 1, "train__max_steps": 3}
    train(load(tmp_path, recipe(**settings)))
    assert not [text for text in notices(tmp_path / "run") if "cannot stop early" in text]


@pytest.mark.parametrize("start", ["pissa", True])
def test_the_best_weights_come_back_whatever_the_adapter_starts_from(recipe, tmp_path, start):
    settings = {"evaluate__every_steps": 1, "evaluate__early_stopping_patience": 2, "train__max_steps": 12}
    result = train(load(tmp_path, recipe(**settings, lora__init_lora_weights=start))).summary
    assert result["adapter_step"] < result["steps"]
    noted = json.loads((tmp_path / "run/checkpoints/best/best.json").read_text())
    assert result["adapter_file_sha256"] == noted["adapter_file_sha256"]
    assert evaluate(tmp_path / "run").tuned.loss == pytest.approx(result["validation_loss"], rel=1e-4)


def test_rows_in_file_order_are_trained_in_file_order(recipe, tmp_path, monkeypatch):
    seen: list[tuple[int, ...]] = []
    real = module.run_loop

    def noting(parts, plan, *, progress):
        seen.extend(tuple(row for batch in parts.batches_of(step) for row in batch.rows) for step in (1, 6, 7))
        return real(parts, plan, progress=progress)

    monkeypatch.setattr(module, "run_loop", noting)
    train(load(tmp_path, recipe(data__shuffle=False, train__max_steps=1)))
    assert [sorted(rows) for rows in seen] == [list(range(8)), list(range(40, 48)), list(range(8))]


def test_a_changed_patience_is_another_recipe(recipe, tmp_path):
    train(load(tmp_path, recipe(train__max_steps=1)))
    with pytest.raises(FledgeError, match="early_stopping_patience"):
        train(load(tmp_path, recipe(train__max_steps=1, evaluate__early_stopping_patience=1)))
