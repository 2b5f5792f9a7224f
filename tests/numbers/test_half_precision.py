"""bfloat16 and float16 with a scaler: near float32, and every overflow answered."""

import pytest

from fledge.commands.train import train
from fledge.rundir import RunDir, read_events, read_steps
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder

STEPS = 8


def curve_of(tmp_path, name, **changes):
    base = tiny_folder("llama", tmp_path / "base")
    rows = write_rows(tmp_path / "rows.jsonl")
    content = recipe_dict(base, rows, tmp_path / name, train__max_steps=STEPS, **changes)
    result = train(load(tmp_path / f"recipe-{name}", content))
    return [event["loss"] for event in read_steps(RunDir(result.run).events)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_half_precision_run_follows_the_float32_run(tmp_path, dtype):
    exact = curve_of(tmp_path, "exact")
    half = curve_of(tmp_path, dtype, model__dtype=dtype)
    assert len(half) == STEPS
    assert half == pytest.approx(exact, abs=0.05)


def test_float16_tells_each_overflow_and_trains_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr("fledge.runtime.precision.DynamicScaler.START", 2.0**28)
    curve = curve_of(tmp_path, "overflowing", model__dtype="float16")
    events = read_events(tmp_path / "overflowing" / "events.jsonl")
    skipped = [event for event in events if event["event"] == "skipped_step"]
    told = [event["step"] for event in events if event["event"] == "step"]
    assert skipped[0]["step"] == 1
    assert [event["scale"] for event in skipped] == [2.0 ** (27 - number) for number in range(len(skipped))]
    assert told == list(range(1, STEPS + 1))
    assert len(curve) == STEPS
