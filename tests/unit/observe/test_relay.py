"""An observer hears everything and harms nothing."""

import random
from pathlib import Path

import pytest
import torch

from fledge.errors import ExtraError
from fledge.events import Event, Finished, Notice, StepDone, TrainStarted
from fledge.observe import trackers
from fledge.observe.observer import Relay
from fledge.observe.trackers import TRACKERS, Tracker, check_trackers, open_trackers
from fledge.rundir import EventLog, RunDir, read_events, read_steps


def step(number: int, loss: float = 1.0) -> StepDone:
    return StepDone(
        step=number, loss=loss, grad_norm=1.0, learning_rate=0.1, tokens=10, supervised_tokens=5, seconds=0.1
    )


class Listener:
    """Remembers what it heard; fails at the events and at the closing it is told to fail at."""

    def __init__(self, name: str = "listener", *, fails_from: int = 10**9, fails_to_close: bool = False) -> None:
        self.name, self.heard, self.closed = name, list[Event](), 0
        self._fails_from, self._fails_to_close = fails_from, fails_to_close

    def __call__(self, event: Event) -> None:
        torch.rand(3) if self._fails_from == 0 else None
        if len(self.heard) >= self._fails_from:
            raise ConnectionError("the server\nis gone")
        self.heard.append(event)

    def close(self) -> None:
        self.closed += 1
        if self._fails_to_close:
            raise OSError("no space")


def test_an_observer_that_fails_is_muted_and_told_of_once() -> None:
    log, good, bad = list[Event](), Listener("good"), Listener("bad", fails_from=1)
    relay = Relay(log.append, [bad, good])
    for number in (1, 2, 3):
        relay(step(number))
    notices = [event.text for event in log if isinstance(event, Notice)]
    assert notices == ["bad failed and is muted, training goes on: ConnectionError: the server"]
    assert [event for event in good.heard if isinstance(event, StepDone)] == [e for e in log if isinstance(e, StepDone)]
    assert len(bad.heard) == 1


def test_two_observers_that_fail_together_do_not_call_each_other_for_ever() -> None:
    log = list[Event]()
    relay = Relay(log.append, [Listener("one", fails_from=0), Listener("two", fails_from=0)])
    relay(step(1))
    assert sum(isinstance(event, Notice) for event in log) == 2


def test_every_observer_is_closed_even_the_muted_one_and_the_one_after_a_failure() -> None:
    log = list[Event]()
    observers = [Listener("muted", fails_from=0), Listener("stuck", fails_to_close=True), Listener("last")]
    relay = Relay(log.append, observers)
    relay(step(1))
    relay.close()
    assert [observer.closed for observer in observers] == [1, 1, 1]
    assert isinstance(log[-1], Notice) and "stuck could not be closed" in log[-1].text


def test_a_log_that_fails_is_not_forgiven() -> None:
    def log(event: Event) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Relay(log, [])(step(1))


def test_an_interrupt_passes_through() -> None:
    def observer(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Relay(lambda event: None, [observer])(step(1))


def loss_curve(folder: Path, names: tuple[str, ...], extra: tuple[Listener, ...] = ()) -> list[float]:
    """Losses of a tiny training whose every step draws from every generator."""
    torch.manual_seed(0)
    random.seed(0)
    run = RunDir(folder)
    log = EventLog(run.events)
    relay = Relay(log, [*open_trackers(names, run), *extra])
    weight = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    started = TrainStarted(
        run=str(folder), total_steps=8, world_size=1, trainable_parameters=4, base_parameters=400, device="cpu"
    )
    relay(started)
    for number in range(1, 9):
        loss = (weight - torch.randn(4) - random.random()).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        relay(step(number, loss.item()))
    relay(Finished(step=8, adapter_sha256="0" * 64, seconds=1.0))
    relay.close()
    log.close()
    muted = [event["text"] for event in read_events(run.events) if event["event"] == "notice"]
    assert len(muted) == len(extra), muted
    return [event["loss"] for event in read_steps(run.events)]


def test_the_losses_are_the_same_to_the_bit_with_trackers_on_off_and_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    without = loss_curve(tmp_path / "without", ())
    assert len(without) == 8
    assert loss_curve(tmp_path / "with", ("tensorboard", "wandb")) == without
    assert loss_curve(tmp_path / "failing", (), (Listener(fails_from=3),)) == without


def test_a_tracker_whose_package_is_missing_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Tracker("fledge.observe.wandb", package="not_a_package_at_all"))
    check_trackers(["tensorboard"])
    with pytest.raises(ExtraError, match=r"pip install 'fledge-lora\[wandb\]'"):
        check_trackers(["tensorboard", "wandb"])


def test_every_tracker_a_recipe_may_name_is_in_the_table() -> None:
    from typing import get_args

    from fledge.config.output import Tracker as Name

    assert set(get_args(Name)) == set(trackers.TRACKERS)
    assert len(trackers.TRACKERS) == 2


def test_a_tracker_that_cannot_be_opened_is_muted_at_its_first_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Tracker("fledge.observe.no_such_module", package="wandb"))
    log = list[Event]()
    relay = Relay(log.append, open_trackers(["wandb"], RunDir(tmp_path)))
    relay(step(1))
    relay(step(2))
    relay.close()
    (notice,) = [event.text for event in log if isinstance(event, Notice)]
    assert notice.startswith("wandb failed and is muted, training goes on: ModuleNotFoundError")
