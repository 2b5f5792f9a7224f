"""Several ranks: the losses of one process, and resumes as exact."""

import json
import signal
import time

import pytest

from tests.journeys.killing import count_steps, start, steps_of
from tests.runs import fledge, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    base, rows = tiny_folder("llama", folder / "base"), write_rows(folder / "rows.jsonl")

    def recipe(name: str, **changes) -> tuple:
        content = recipe_dict(
            base,
            rows,
            folder / name,
            train__max_steps=8,
            train__micro_batch_rows=2,
            lora__lora_dropout=0.1,
            data__validation={"fraction": 0.2},
            **changes,
        )
        return write_recipe(folder / f"{name}.yaml", content), folder / name

    return recipe


@pytest.mark.slow
def test_two_ranks_give_the_losses_of_one(workplace):
    one, run_one = workplace("one")
    two, run_two = workplace("two")
    fledge("train", str(one))
    fledge("train", str(two), "--nproc", "2")
    ours, theirs = steps_of(run_two), steps_of(run_one)
    assert len(ours) == len(theirs) == 8
    for a, b in zip(ours, theirs, strict=True):
        assert a[1] == pytest.approx(b[1], abs=1e-6)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (run_one, run_two)]
    assert summaries[0]["tokens"] == summaries[1]["tokens"]
    assert summaries[0]["validation_loss"] == pytest.approx(summaries[1]["validation_loss"], abs=1e-6)


@pytest.mark.slow
def test_two_ranks_stopped_and_resumed_change_no_bit(workplace):
    whole, run_whole = workplace("whole")
    parts, run_parts = workplace("parts")
    fledge("train", str(whole), "--nproc", "2")
    process = start(parts, "--nproc", "2")
    deadline = time.monotonic() + 120
    while count_steps(run_parts) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    fledge("train", str(parts), "--nproc", "2")
    assert steps_of(run_parts) == steps_of(run_whole)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (run_whole, run_parts)]
    assert summaries[0]["adapter_sha256"] == summaries[1]["adapter_sha256"]
