"""The trackers a recipe can name: one line here and one file beside it for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from fledge.errors import ExtraError
from fledge.events import Event
from fledge.observe.observer import Observer
from fledge.release import DISTRIBUTION
from fledge.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Tracker:
    """A tracker's module, which has `open_tracker(run) -> Observer`, and the package that its extra installs."""

    module: str
    package: str


TRACKERS = {
    "tensorboard": Tracker("fledge.observe.tensorboard", package="tensorboard"),
    "wandb": Tracker("fledge.observe.wandb", package="wandb"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Raises ExtraError where a tracker's package is not installed; asked before anything heavy is loaded."""
    for name in names:
        if find_spec(TRACKERS[name].package) is None:
            cure = f"pip install '{DISTRIBUTION}[{name}]', or remove {name} from output.trackers"
            raise ExtraError(f"the tracker {name} is not installed", where="output.trackers", cure=cure)


def open_trackers(names: Sequence[str], run: RunDir) -> tuple[Observer, ...]:
    """The observers of the trackers that a recipe names. Raises ExtraError as `check_trackers` does.

    One that cannot be opened fails at its first event instead, where the relay mutes it.
    """
    check_trackers(names)
    return tuple(_open(name, run) for name in names)


def _open(name: str, run: RunDir) -> Observer:
    try:
        observer: Observer = import_module(TRACKERS[name].module).open_tracker(run)
        return observer
    except Exception as error:
        return _Unopened(name, error)


class _Unopened:
    """Stands in for a tracker that could not be opened."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name = name
        self._error = error

    def __call__(self, event: Event) -> None:
        raise self._error

    def close(self) -> None:
        pass
