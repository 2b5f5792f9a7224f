"""Runs the parts of bench/quality.py as processes, some at a time, and says how long the rest will take."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

Kind = tuple[str, str, str]
"""train or judge, the task, and the tool or the model: parts of one kind take the same time."""

ESTIMATED_SECONDS: dict[Kind, float] = {
    ("train", "alpaca", "peft"): 900.0,
    ("train", "alpaca", "fledge"): 600.0,
    ("judge", "alpaca", "base"): 400.0,
    ("judge", "alpaca", "tuned"): 350.0,
    ("train", "records", "peft"): 1650.0,
    ("train", "records", "fledge"): 950.0,
    ("judge", "records", "base"): 450.0,
    ("judge", "records", "tuned"): 450.0,
}
"""With all rows, on one core of two: from the processor time of a few steps and answers on a machine in use."""
POLL_SECONDS, TELL_SECONDS = 0.5, 120.0


@dataclass(frozen=True, slots=True)
class Part:
    """One process with the file that it leaves when it is done."""

    name: str
    command: list[str]
    result: Path
    kind: Kind
    after: "Part | None" = None

    @property
    def is_done(self) -> bool:
        return self.result.exists()

    @property
    def log(self) -> Path:
        """Where the process prints."""
        return self.result.parent.with_name(self.result.parent.name + ".log")


@dataclass(slots=True)
class Running:
    """A part under way."""

    part: Part
    process: subprocess.Popen
    start: float
    cpu_seconds: float = 0.0

    def has_ended(self) -> bool:
        """Whether the process has ended; takes what processor time it used, which a busy machine does not change."""
        number, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if number:
            self.process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return bool(number)


class Clock:
    """Seconds of each kind of part: those measured in this run, else the estimate for the sizes at hand."""

    def __init__(self, scale: Mapping[str, float]) -> None:
        self._scale, self._measured = scale, dict[Kind, list[float]]()

    def add(self, kind: Kind, seconds: float) -> None:
        self._measured.setdefault(kind, []).append(seconds)

    def of(self, kind: Kind) -> float:
        if kind in self._measured:
            return fmean(self._measured[kind])
        return ESTIMATED_SECONDS.get(kind, 600.0) * self._scale[kind[0]]

    def left(self, waiting: Sequence[Part], running: Sequence[Running], *, jobs: int) -> float:
        """Seconds until all is done, the work spread evenly over the jobs."""
        under_way = [max(self.of(one.part.kind) - (time.monotonic() - one.start), 0.0) for one in running]
        return max([(sum(under_way) + sum(self.of(part.kind) for part in waiting)) / jobs, *under_way])


def run_parts(parts: Sequence[Part], *, jobs: int, scale: Mapping[str, float], stop_after: float | None) -> bool:
    """Run every part that has no result yet. Returns whether all have one; a part that fails ends the script."""
    clock, start = Clock(scale), time.monotonic()
    waiting, running = [part for part in parts if not part.is_done], list[Running]()
    print(
        f"{len(parts) - len(waiting)} of {len(parts)} parts are done; {_time_left(clock, waiting, running, jobs)}",
        flush=True,
    )
    told = start
    try:
        while waiting or running:
            in_time = [part for part in waiting if _ends_in_time(clock, part, start=start, stop_after=stop_after)]
            ready = [part for part in in_time if part.after is None or part.after.is_done]
            if not running and not ready:
                return False
            for part in ready[: jobs - len(running)]:
                waiting.remove(part)
                running.append(_begin(part, jobs=jobs))
            time.sleep(POLL_SECONDS)
            for ended in [one for one in running if one.has_ended()]:
                running.remove(ended)
                _check(ended)
                clock.add(ended.part.kind, seconds := time.monotonic() - ended.start)
                took = f"{seconds:.0f} s ({ended.cpu_seconds:.0f} s of the processor)"
                _tell(f"{ended.part.name}: {took}; {_time_left(clock, waiting, running, jobs)}")
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                names = ", ".join(one.part.name for one in running)
                _tell(f"running {names}; {_time_left(clock, waiting, running, jobs)}")
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
    return True


def _ends_in_time(clock: Clock, part: Part, *, start: float, stop_after: float | None) -> bool:
    return stop_after is None or time.monotonic() - start + clock.of(part.kind) <= stop_after * 3600


def _begin(part: Part, *, jobs: int) -> Running:
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    part.log.parent.mkdir(parents=True, exist_ok=True)
    part.result.parent.parent.mkdir(parents=True, exist_ok=True)
    with part.log.open("ab") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen([sys.executable, *part.command], stdout=log, stderr=log, env=environment)
    return Running(part, process, time.monotonic())


def _check(ended: Running) -> None:
    if ended.process.returncode or not ended.part.is_done:
        tail = ended.part.log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"{ended.part.name} ended with {ended.process.returncode}:\n{tail}")


def _time_left(clock: Clock, waiting: Sequence[Part], running: Sequence[Running], jobs: int) -> str:
    seconds = clock.left(waiting, running, jobs=jobs)
    return f"{len(waiting)} wait, {len(running)} run, about {seconds / 60:.0f} minutes left"


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
