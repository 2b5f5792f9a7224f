"""Kills a real training process at a chosen or random moment, again and again, until it has finished."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.runs import environment

PATIENCE_SECONDS = 240


@dataclass(frozen=True)
class Outcome:
    """What a run came to after its kills."""

    kills: list[str]
    """The moment of each kill: what the run folder showed."""
    summary: dict
    steps: list[tuple[int, float, float]]
    """(step, loss, grad_norm) of each step, last telling."""


def start(recipe: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """`fledge train` in a process group of its own."""
    command = [sys.executable, "-m", "fledge", "train", str(recipe), *overrides]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the whole group: no handler runs, nothing is flushed."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def train_through_kills(recipe: Path, run: Path, *, kills: int, seed: int) -> Outcome:
    """Start the run, kill it at `kills` random moments with a restart after each, then let it finish."""
    draw, moments = random.Random(seed), []
    for _ in range(kills):
        begun = count(run, "train_started")
        process = start(recipe)
        moment = _wait_for_moment(process, run, draw, begun=begun)
        if process.poll() is not None:
            break
        kill(process)
        moments.append(moment)
    process = start(recipe)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors.decode()
    return Outcome(moments, json.loads((run / "summary.json").read_text()), steps_of(run))


def _wait_for_moment(process: subprocess.Popen[bytes], run: Path, draw: random.Random, *, begun: int) -> str:
    """Wait for a randomly chosen moment: some time after a step, or the middle of a save."""
    wants_save = draw.random() < 0.5
    target = count_steps(run) + draw.randint(0, 3)
    pause = draw.uniform(0, 0.12)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if count(run, "train_started") > begun and count_steps(run) >= target:
            if wants_save and any((run / "checkpoints").glob(".step-*.tmp")):
                return "mid-save"
            if not wants_save:
                time.sleep(pause)
                return "mid-step"
        time.sleep(0.0005)
    return "finished"


def count_steps(run: Path) -> int:
    """Step events in the log, repeats included."""
    return count(run, "step")


def count(run: Path, event: str) -> int:
    """Events of one name in the log."""
    log = run / "events.jsonl"
    return log.read_bytes().count(f'"event": "{event}"'.encode()) if log.exists() else 0


def steps_of(run: Path) -> list[tuple[int, float, float]]:
    """(step, loss, grad_norm) of each step; the last telling counts."""
    told = {}
    for line in (run / "events.jsonl").read_bytes().split(b"\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "step":
            told[event["step"]] = (event["step"], event["loss"], event["grad_norm"])
    return [told[step] for step in sorted(told)]
