"""With patience a run ends when validation has got no better for so long, and its best weights can be put back."""

import math

import pytest
import torch

from fledge.events import StepDone, Validated
from fledge.rundir import RunDir
from fledge.training.checkpoint import load_best, load_newest
from fledge.training.loop import run_loop
from fledge.training.state import Progress

from .toy import ToyRun

NAN = math.nan


def toy(folder, losses, *, patience=2, **changes) -> ToyRun:
    return ToyRun(folder, total_steps=8, validate_every=1, patience=patience, validation_losses=losses, **changes)


def weights(run: ToyRun) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


@pytest.mark.parametrize(
    ("losses", "patience", "ended"),
    [
        ([5, 4, 3, 2, 1, 0, 0, 0], 2, (8, 6, False)),
        ([3, 4, 5, 6, 7, 8, 9, 9], 2, (3, 1, True)),
        ([3, 4, 2, 4, 3, 1, 1, 1], 2, (5, 3, True)),
        ([3, 4, 2, 4, 3, 1, 1, 1], 3, (8, 6, False)),
        ([3, 3, 3, 3, 3, 3, 3, 3], 1, (2, 1, True)),
        ([3, NAN, NAN, 1, 1, 1, 1, 1], 2, (3, 1, True)),
        ([NAN, NAN, NAN, 1, 1, 1, 1, 1], 2, (2, None, True)),
        ([5, 4, 3, 2, 1, 0, 1, 1], 2, (8, 6, False)),
        ([9, 8, 7, 6, 5, 4, 3, 4], 1, (8, 7, False)),
        ([3, 4, 5, 6, 7, 8, 9, 9], None, (8, 1, False)),
    ],
)
def test_it_ends_after_so_many_validations_without_a_better_one(losses, patience, ended, tmp_path):
    run = toy(tmp_path, losses, patience=patience)
    progress = run_loop(run.parts(), run.plan(), progress=Progress())
    assert (progress.step, progress.best_step, progress.stopped_early) == ended
    assert RunDir(tmp_path).checkpoint_steps()[-1] == progress.step


def test_the_best_weights_are_put_back_to_the_bit(tmp_path):
    run = toy(tmp_path, [3, 2, 4, 4, 1, 1, 1, 1])
    parts, seen = run.parts(), {}

    def tell(event):
        run.told.append(event)
        if isinstance(event, Validated):
            seen[event.step] = weights(run)

    parts = type(parts)(**{name: getattr(parts, name) for name in type(parts).__dataclass_fields__} | {"tell": tell})
    progress = run_loop(parts, run.plan(), progress=Progress())
    assert (progress.step, progress.best_step) == (4, 2)
    assert not all(map(torch.equal, weights(run), seen[2]))
    load_best(parts.run, parts.trained)
    assert all(map(torch.equal, weights(run), seen[2]))


class Killed(BaseException):
    """Stands for a process that dies."""


@pytest.mark.parametrize("moment", [StepDone, Validated])
@pytest.mark.parametrize("last", range(1, 7))
def test_patience_goes_on_over_a_kill_wherever_it_was(last, moment, tmp_path):
    losses = [3, 2, 4, 1, 5, 6, 7, 8]
    whole = toy(tmp_path / "whole", losses, patience=3)
    expected = run_loop(whole.parts(), whole.plan(), progress=Progress())
    assert (expected.step, expected.best_step, expected.stopped_early) == (7, 4, True)
    first = toy(tmp_path / "run", losses, patience=3)
    parts = first.parts()

    def tell(event):
        first.told.append(event)
        if isinstance(event, moment) and event.step == last:
            raise Killed

    changed = {name: getattr(parts, name) for name in type(parts).__dataclass_fields__} | {"tell": tell}
    with pytest.raises(Killed):
        run_loop(type(parts)(**changed), first.plan(), progress=Progress())
    second = toy(tmp_path / "run", losses, patience=3)
    again = second.parts()
    progress = run_loop(again, second.plan(), progress=load_newest(again.run, again.trained) or Progress())
    names = ("step", "best_step", "best_loss", "validations_since_best", "stopped_early", "last_loss")
    assert [getattr(progress, name) for name in names] == [getattr(expected, name) for name in names]
    assert all(map(torch.equal, weights(second), weights(whole)))
    load_best(again.run, again.trained)
    load_best(RunDir(tmp_path / "whole"), whole.parts().trained)
    assert all(map(torch.equal, weights(second), weights(whole)))


def test_a_run_that_stopped_early_takes_no_step_more_when_it_is_begun_again(tmp_path):
    run = toy(tmp_path, [1, 2, 2, 2, 2, 2, 2, 2])
    expected = run_loop(run.parts(), run.plan(), progress=Progress())
    again = toy(tmp_path, [0] * 8)
    parts = again.parts()
    assert run_loop(parts, again.plan(), progress=load_newest(parts.run, parts.trained)) == expected
    assert not again.told
