"""What an observer is, and the relay that keeps a failing one from harming the run."""

from collections.abc import Callable, Sequence
from typing import Protocol

from fledge.events import Event, Notice


class Observer(Protocol):
    """Listens to the events of a run."""

    def __call__(self, event: Event) -> None: ...
    def close(self) -> None:
        """Write out what is pending, when the run is over or stopped; may be called again."""


class Relay:
    """Tells the log and every observer. The log must work; an observer that fails is muted and told of once."""

    def __init__(self, log: Callable[[Event], None], observers: Sequence[Callable[[Event], None]]) -> None:
        self._log = log
        self._listening = list(observers)
        self._all = tuple(observers)

    def __call__(self, event: Event) -> None:
        self._log(event)
        failures = []
        for observer in tuple(self._listening):
            try:
                observer(event)
            except Exception as error:  # whatever it is, the run is worth more than its audience
                self._listening.remove(observer)
                failures.append(f"{_name(observer)} failed and is muted, training goes on: {_brief(error)}")
        for text in failures:
            self(Notice(text=text))

    def close(self) -> None:
        """Close every observer that can be closed, muted ones too; what fails now is told to the log alone."""
        self._listening.clear()
        for observer in self._all:
            try:
                getattr(observer, "close", _nothing)()
            except Exception as error:
                self._log(Notice(text=f"{_name(observer)} could not be closed: {_brief(error)}"))


def _nothing() -> None:
    pass


def _name(observer: object) -> str:
    return str(getattr(observer, "name", type(observer).__name__))


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]
