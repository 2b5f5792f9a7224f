"""Real processes killed and stopped: what is left goes on to the same bits."""

import json
import signal
import time

import pytest
import torch

from fledge.ops.choice import runs_on
from fledge.rundir import RunDir, read_events
from tests.journeys.killing import PATIENCE_SECONDS, count_steps, start, steps_of, train_through_kills
from tests.runs import fledge, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    base = tiny_folder("llama", folder / "base")
    rows = write_rows(folder / "rows.jsonl")

    def recipe(name: str) -> tuple:
        content = recipe_dict(
            base,
            rows,
            folder / name,
            lora__lora_dropout=0.1,
            train__max_steps=14,
            train__micro_batch_rows=2,
            data__validation={"fraction": 0.2},
            evaluate__every_steps=3,
        )
        return write_recipe(folder / f"{name}.yaml", content), folder / name

    return recipe


@pytest.fixture(scope="module")
def undisturbed(workplace):
    recipe, run = workplace("undisturbed")
    fledge("train", str(recipe))
    return json.loads((run / "summary.json").read_text()), steps_of(run)


def states_of(run) -> dict[str, bytes]:
    """Weights, optimiser and generators of the last checkpoint, byte by byte."""
    folder = RunDir(run).checkpoint(RunDir(run).checkpoint_steps()[-1])
    names = ("weights.safetensors", "optimizer.safetensors", "generators.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def count_until(run, steps):
    """Waits until so many steps are done."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while count_steps(run) < steps and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_anywhere_and_resumed_changes_no_bit(workplace, undisturbed, seed):
    recipe, run = workplace(f"killed-{seed}")
    outcome = train_through_kills(recipe, run, kills=3, seed=seed)
    summary, steps = undisturbed
    assert outcome.kills
    resumed = [event for event in read_events(run / "events.jsonl") if event["event"] == "resumed"]
    assert 1 <= len(resumed) <= len(outcome.kills)
    assert outcome.summary["adapter_sha256"] == summary["adapter_sha256"]
    assert outcome.steps == steps
    assert states_of(run) == states_of(run.parent / "undisturbed")
    assert {k: outcome.summary[k] for k in ("tokens", "rows", "validation_loss", "first_loss", "last_loss")} == {
        k: summary[k] for k in ("tokens", "rows", "validation_loss", "first_loss", "last_loss")
    }


@pytest.fixture(scope="module")
def stopping(tmp_path_factory):
    """A recipe whose validation rows contradict what is trained, so that it stops early."""
    folder = tmp_path_factory.mktemp("stopping")
    base, rows = tiny_folder("llama", folder / "base"), write_rows(folder / "rows.jsonl")
    body = [json.loads(line) | {"completion": " please one"} for line in rows.read_text().splitlines()[:8]]
    (folder / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in body))

    def recipe(name: str) -> tuple:
        content = recipe_dict(
            base,
            rows,
            folder / name,
            data__validation={"path": str(folder / "others.jsonl"), "format": "completion"},
            lora__lora_dropout=0.1,
            train__max_steps=60,
            train__learning_rate=3e-3,
            train__save_every_steps=3,
            evaluate__every_steps=2,
            evaluate__early_stopping_patience=3,
        )
        return write_recipe(folder / f"{name}.yaml", content), folder / name

    return recipe


def test_a_run_that_is_killed_stops_early_at_the_same_step_with_the_same_adapter(stopping):
    recipe, run = stopping("undisturbed")
    fledge("train", str(recipe))
    summary, steps = json.loads((run / "summary.json").read_text()), steps_of(run)
    assert summary["stopped_early"] and summary["adapter_step"] == summary["steps"] - 6 < 54
    recipe, run = stopping("killed")
    outcome = train_through_kills(recipe, run, kills=2, seed=5)
    assert outcome.kills and outcome.steps == steps
    assert states_of(run) == states_of(run.parent / "undisturbed")
    names = ("adapter_sha256", "adapter_file_sha256", "steps", "stopped_early", "best_step", "adapter_step")
    names += ("validation_loss", "best_validation_loss", "tokens", "rows", "first_loss", "last_loss")
    assert [outcome.summary[name] for name in names] == [summary[name] for name in names]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_exits_and_the_same_command_goes_on(workplace, undisturbed, number, code):
    recipe, run = workplace(f"stopped-{code}")
    process = start(recipe)
    count_until(run, 3)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    stopped_at = RunDir(run).checkpoint_steps()[-1]
    assert 3 <= stopped_at < 14
    assert steps_of(run)[-1][0] == stopped_at
    fledge("train", str(recipe))
    summary, steps = undisturbed
    assert json.loads((run / "summary.json").read_text())["adapter_sha256"] == summary["adapter_sha256"]
    assert steps_of(run) == steps


@pytest.mark.skipif(not runs_on(torch.device("cpu")), reason="no C++ compiler here")
def test_a_run_that_goes_on_by_other_kernels_says_that_last_bits_may_differ(workplace, undisturbed):
    recipe, run = workplace("moved")
    process = start(recipe)
    count_until(run, 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    fledge("train", str(recipe), CXX="no-compiler-here")
    told = [event["text"] for event in read_events(run / "events.jsonl") if event["event"] == "notice"]
    (said,) = [text for text in told if text.startswith("this run began with")]
    kernels = json.loads((run / "manifest.json").read_text())["hardware"]["computes"]
    assert kernels.startswith("C++ kernels ")
    assert said == (
        f"this run began with each step by {kernels}, now torch's operations: losses agree, last bits may not"
    )
    losses, expected = ([loss for _, loss, _ in steps] for steps in (steps_of(run), undisturbed[1]))
    assert losses == pytest.approx(expected, rel=1e-4)


def test_a_finished_run_is_left_as_it_is(workplace, undisturbed):
    recipe, run = workplace("undisturbed")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    done = fledge("train", str(recipe))
    assert done.returncode == 0
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after
