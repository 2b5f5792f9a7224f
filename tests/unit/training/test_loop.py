"""The loop: resumes at any step without changing a bit, stops in order, and stops when going on would be wrong."""

import json
import signal

import pytest
import torch

from fledge.errors import RunError, StoppedBySignal, TrainingError
from fledge.events import Failed, Saved, StepDone, StepSkipped, Validated
from fledge.rundir import RunDir, remove_leftovers
from fledge.runtime.precision import DynamicScaler
from fledge.training.checkpoint import load_newest
from fledge.training.loop import MAX_SKIPPED, run_loop
from fledge.training.state import Progress

from .toy import Toy, ToyRun, toy_loss


def losses(run: ToyRun) -> list[tuple[int, float, float]]:
    return [(e.step, e.loss, e.grad_norm) for e in run.told if isinstance(e, StepDone)]


def whole_run(folder) -> ToyRun:
    run = ToyRun(folder)
    run_loop(run.parts(), run.plan(), progress=Progress())
    return run


class Killed(BaseException):
    """Stands for a process that dies between two steps."""


def test_resume_at_any_step_changes_no_bit(tmp_path):
    reference = whole_run(tmp_path / "whole")
    tried = 0
    for last in range(1, 6):
        first = ToyRun(tmp_path / f"killed-{last}")
        parts = first.parts()

        def tell(event, first=first, last=last):
            first.told.append(event)
            if isinstance(event, StepDone) and event.step == last:
                raise Killed

        with pytest.raises(Killed):
            run_loop(type(parts)(**{**fields(parts), "tell": tell}), first.plan(), progress=Progress())
        torch.manual_seed(last)  # what a new process has in its generators is not what the old one had
        second = ToyRun(first.folder)
        again = second.parts()
        progress = load_newest(RunDir(first.folder), again.trained)
        assert progress is not None and progress.step == last - last % 2 - (2 if last % 2 == 0 else 0)
        run_loop(again, second.plan(), progress=progress)
        told = {step: rest for step, *rest in [*losses(first), *losses(second)]}
        assert told == {step: rest for step, *rest in losses(reference)}
        for a, b in zip(second.model.parameters(), reference.model.parameters(), strict=True):
            assert torch.equal(a, b)
        tried += 1
    assert tried == 5


def fields(value):
    return {name: getattr(value, name) for name in type(value).__dataclass_fields__}


def test_a_signal_ends_the_run_after_its_step_with_everything_saved(tmp_path):
    run = ToyRun(tmp_path)
    parts = run.parts()

    def tell(event):
        run.told.append(event)
        if isinstance(event, StepDone) and event.step == 3:
            run.stop.signal_number = signal.SIGTERM

    with pytest.raises(StoppedBySignal) as stopped:
        run_loop(type(parts)(**{**fields(parts), "tell": tell}), run.plan(), progress=Progress())
    assert stopped.value.exit_code == 143
    assert RunDir(tmp_path).checkpoint_steps()[-1] == 3


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(tmp_path):
    run = ToyRun(tmp_path)
    run.loss_of = lambda model, batch: toy_loss(model, batch) * (float("nan") if batch.rows == (13,) else 1.0)
    with pytest.raises(TrainingError, match="not finite") as failed:
        run_loop(run.parts(), run.plan(), progress=Progress())
    assert "row 13" in str(failed.value)
    assert failed.value.exit_code == 1
    assert RunDir(tmp_path).checkpoint_steps() == [0, 2]
    assert [e.step for e in run.told if isinstance(e, Failed)] == [3]


def test_an_adapter_tensor_without_a_gradient_stops_the_run_by_the_second_step(tmp_path):
    run = ToyRun(tmp_path)
    run.model.lora_C = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(TrainingError, match="lora_C"):
        run_loop(run.parts(), run.plan(), progress=Progress())


def test_an_overflow_in_float16_is_an_event_and_the_rows_are_tried_again(tmp_path):
    run = ToyRun(tmp_path, scaler=DynamicScaler(2.0**20))
    limit = 2.0**17

    def loss_of(model, batch):
        return toy_loss(model, batch) * (float("inf") if run.scaler.factor > limit else 1.0)

    run.loss_of = loss_of
    run_loop(run.parts(), run.plan(), progress=Progress())
    assert [(e.step, e.scale) for e in run.told if isinstance(e, StepSkipped)] == [
        (1, 2.0**19),
        (1, 2.0**18),
        (1, limit),
    ]
    assert losses(run) == losses(whole_run(tmp_path / "plain"))


def test_twenty_overflows_in_a_row_stop_the_run(tmp_path):
    run = ToyRun(tmp_path, scaler=DynamicScaler())
    run.loss_of = lambda model, batch: toy_loss(model, batch) * float("inf")
    with pytest.raises(TrainingError, match=f"{MAX_SKIPPED} steps in a row"):
        run_loop(run.parts(), run.plan(), progress=Progress())
    assert sum(isinstance(e, StepSkipped) for e in run.told) == MAX_SKIPPED


def test_checkpoints_beyond_the_retention_count_go_and_the_best_stays(tmp_path):
    run = whole_run(tmp_path)
    folder = RunDir(tmp_path)
    assert folder.checkpoint_steps() == [4, 6]
    assert [e.step for e in run.told if isinstance(e, Saved)] == [0, 2, 4, 6]
    validated = [e for e in run.told if isinstance(e, Validated)]
    assert [e.step for e in validated] == [3, 6]
    best = min(validated, key=lambda e: e.loss)
    written = {"step": best.step, "validation_loss": best.loss, "adapter_file_sha256": "the sha256"}
    assert json.loads((folder.best / "best.json").read_text()) == written


def test_a_checkpoint_of_another_adapter_is_refused(tmp_path):
    whole_run(tmp_path)
    other = ToyRun(tmp_path)
    other.model.extra = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(RunError, match="another adapter"):
        load_newest(RunDir(tmp_path), other.parts().trained)


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    whole_run(tmp_path)
    folder = RunDir(tmp_path)
    torn = folder.checkpoints / ".step-9.123.tmp"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    progress = load_newest(folder, ToyRun(tmp_path, model=Toy()).parts().trained)
    assert progress is not None and progress.step == 6
    remove_leftovers(folder)
    assert not torn.exists()
