"""Stopping in order: the first SIGINT or SIGTERM asks for an end after the step, the second one ends at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class StopRequest:
    """Whether, and by which signal, an end was asked for; 0 means that none was."""

    signal_number: int = 0


@contextlib.contextmanager
def catching_signals(request: StopRequest) -> Iterator[None]:
    """Within this block the first signal is noted in `request`; a second one has its usual effect.

    Meant for the steps alone: before and after them there is nothing to finish, and a signal ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
