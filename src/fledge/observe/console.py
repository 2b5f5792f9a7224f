"""Progress for a person: a bar on a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from rich.console import Console as Screen
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from fledge.events import Event, Notice, Prepared, Resumed, StepDone, StepSkipped, TrainStarted, Validated
from fledge.units import for_terminal, format_bytes, format_count, format_seconds

RECENT_STEPS = 20
PLAIN_LINES = 20
SECONDS_OF_SILENCE = 30.0
"""Plain output is a line for each twentieth of the run, and one after this long without any."""


class Console:
    """Shows a run's events on `stream`. Colours and the bar follow the terminal, NO_COLOR and TERM=dumb.

    `memory_of` gives the peak memory in bytes of a device, named as the `train_started` event names it.
    """

    name = "the console"

    def __init__(self, stream: TextIO, *, memory_of: Callable[[str], int]) -> None:
        self._screen = Screen(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._memory_of = memory_of
        self._is_live = self._screen.is_terminal and not self._screen.is_dumb_terminal
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._recent: deque[StepDone] = deque(maxlen=RECENT_STEPS)
        self._total_steps, self._device = 0, "cpu"
        self._last_line = time.monotonic()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, TrainStarted):
            self._start(event)
        elif isinstance(event, Prepared):
            self._stop_bar()
            self._say(_prepared(event))
        elif isinstance(event, Resumed):
            self._say(f"going on after step {event.from_step}")
        elif isinstance(event, Validated):
            self._say(
                f"step {event.step}  validation loss {event.loss:.4f}{'  (best so far)' if event.is_best else ''}"
            )
        elif isinstance(event, StepSkipped):
            self._say(f"step {event.step}  skipped: overflow in float16, scale now {event.scale:g}")
        elif isinstance(event, Notice):
            self._say(f"note: {event.text}")

    def preparing(self, done: int, total: int | None) -> None:
        """Show how many rows are prepared."""
        if self._is_live:
            if self._bar is None:
                self._start_bar("preparing", total, "rows")
            assert self._bar is not None
            self._bar.update(self._task, completed=done, total=total)
            if total is not None and done >= total:
                self._stop_bar()
        elif time.monotonic() - self._last_line > SECONDS_OF_SILENCE:
            self._say(f"preparing  {done:,}{f' of {total:,}' if total else ''} rows")

    def close(self) -> None:
        self._stop_bar()

    def _start(self, event: TrainStarted) -> None:
        self._total_steps, self._device = event.total_steps, event.device
        ranks = f" in {event.world_size} processes" if event.world_size > 1 else ""
        share = event.trainable_parameters / event.base_parameters
        self._say(
            f"training {event.trainable_parameters:,} parameters on {event.device}{ranks}: {share:.2%} of the base's"
        )
        self._say(f"run folder {event.run}")
        if self._is_live:
            self._start_bar("training", event.total_steps, "steps")

    def _step(self, event: StepDone) -> None:
        self._recent.append(event)
        if self._is_live:
            if self._bar is not None:
                self._bar.update(self._task, completed=event.step, numbers=self._numbers(event))
            return
        every = max(1, self._total_steps // PLAIN_LINES)
        is_due = event.step % every == 0 or event.step in (1, self._total_steps)
        if is_due or time.monotonic() - self._last_line > SECONDS_OF_SILENCE:
            self._say(f"step {event.step}/{self._total_steps}  {self._numbers(event)}")

    def _numbers(self, event: StepDone) -> str:
        seconds = sum(step.seconds for step in self._recent)
        parts = [f"loss {event.loss:.4f}"]
        if seconds > 0:
            tokens = sum(step.tokens for step in self._recent)
            left = seconds / len(self._recent) * max(0, self._total_steps - event.step)
            parts += [f"{format_count(tokens / seconds)} tokens/s", f"{format_seconds(left)} left"]
        parts.insert(2, format_bytes(self._memory_of(self._device)))
        return "  ".join(parts)

    def _start_bar(self, what: str, total: int | None, unit: str) -> None:
        self._stop_bar()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        self._bar = Progress(*columns, console=self._screen, transient=what == "preparing")
        self._task = self._bar.add_task(what, total=total, numbers=unit)
        self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._screen.print(for_terminal(text) if self._screen.is_terminal else text)


def _prepared(event: Prepared) -> str:
    dropped = f" ({event.dropped_rows:,} dropped)" if event.dropped_rows else ""
    how = "from the cache" if event.from_cache else f"in {format_seconds(event.seconds)}"
    tokens = f"{format_count(event.tokens)} tokens, {format_count(event.supervised_tokens)} of them trained"
    return f"prepared {event.rows:,} rows{dropped}, {tokens}, {how}"
