"""What each phase of a run takes: its most memory and its time."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from fledge.runtime.memory import peak_since

BRIEF = 0.01
"""Seconds; a phase that took less is not told."""


class Phases:
    """Measures phases, which may lie within others and may come several times: a training has many validations.

    A phase's time and peak leave out the phases within it. Its peak counts all that the process holds meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._open: list[str] = []
        self._seconds: dict[str, float] = {}
        self._peaks: dict[str, int | None] = {}
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        """What is done within it is the phase `name`."""
        self._settle()
        self._open.append(name)
        self._seconds.setdefault(name, 0.0)  # so that phases are told in the order in which they began
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def told(self) -> dict[str, dict[str, Any]]:
        """By phase its `peak_memory_bytes` and its `seconds`. The peak is None where the system cannot tell it: then
        it was no higher than that of a phase before.
        """
        return {
            name: {"peak_memory_bytes": self._peaks.get(name), "seconds": seconds}
            for name, seconds in self._seconds.items()
            if seconds >= BRIEF
        }

    def _settle(self) -> None:
        """Give the time and the peak since the last call to the innermost open phase."""
        now, peak = time.perf_counter(), peak_since(self.device)
        if self._open:
            name = self._open[-1]
            self._seconds[name] += now - self._since
            known = [each for each in (peak, self._peaks.get(name)) if each is not None]
            self._peaks[name] = max(known, default=None)
        self._since = now
