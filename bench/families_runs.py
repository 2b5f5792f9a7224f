"""What one process of bench/families.py does: build a base, train it with Fledge, compare with the reference."""

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.families_reference import Outcome, PlainRow, Schedule, outcome, saved_loss
from fledge.cli.main import run as fledge
from fledge.commands.steps import row_order
from fledge.config.load import load_recipe
from fledge.data.pipeline import prepare_training
from fledge.data.rows import Row
from fledge.models.load_tokenizer import load_tokenizer
from fledge.rundir import RunDir, read_events, read_steps

STEPS, ROWS_PER_STEP, ROWS, HELD_OUT = 6, 8, 24, 8
EXACT = 1e-5
"""Largest relative difference of a loss."""
_DEFAULTS = {"learning_rate": 3e-4, "r": 16, "lora_alpha": 32.0}
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "padded": {"data": {"packing": False}},
    "single": {"data": {"packing": False}, "train": {"micro_batch_rows": 1}},
}
MICRO_TOKENS = 160
"""Several rows in a micro-batch, several micro-batches in a step; given, for auto would measure the machine first."""


def write_recipe(folder: Path, way: str, *, steps: int = STEPS) -> Path:
    """The default recipe in float32 for the base in `folder`, as `way` changes it."""
    train = {"max_steps": steps, "global_batch_size": ROWS_PER_STEP}
    if way != "single":
        train["micro_batch_tokens"] = MICRO_TOKENS
    recipe: dict[str, dict[str, Any]] = {
        "model": {"name_or_path": str(folder / "base"), "dtype": "float32"},
        "data": {
            "train": {"path": str(folder / "rows.jsonl"), "format": "completion"},
            "validation": {"path": str(folder / "held-out.jsonl"), "format": "completion"},
            "max_length": 96,
        },
        "train": train,
        "output": {"dir": str(folder / way)},
    }
    for section, values in WAYS[way].items():
        recipe[section] |= values
    path = folder / f"{way}.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def rows_of(folder: Path, way: str, *, steps: int) -> tuple[list[list[PlainRow]], list[PlainRow], Schedule]:
    """The rows of each step, the held-out rows and the settings of a run."""
    recipe = load_recipe(folder / f"{way}.yaml", ())
    tokenizer = load_tokenizer(recipe.model, recipe.data)
    data = prepare_training(recipe.data, tokenizer, seed=recipe.train.seed, progress=lambda done, total: None)
    assert data.validation is not None and recipe.train.lr_scheduler == "cosine"
    order = row_order(recipe, data)
    taken = [[_plain(data.train.row(index)) for index in order.rows_of_step(n)] for n in range(1, steps + 1)]
    held_out = [_plain(data.validation.row(index)) for index in range(len(data.validation))]
    warmup = math.ceil(0.03 * steps)
    settings = Schedule(recipe.train.learning_rate, warmup, recipe.lora.r, recipe.lora.lora_alpha)
    assert asdict(settings) == {**_DEFAULTS, "warmup_steps": warmup}, settings
    return taken, held_out, settings


def _plain(row: Row) -> PlainRow:
    return PlainRow(tuple(row.input_ids.tolist()), tuple(bool(kept) for kept in row.trained))


def train_one(folder: Path, way: str) -> int:
    """`fledge train`, with what it says in WAY.txt; returns its exit code."""
    with (folder / f"{way}.txt").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        code = fledge(["train", str(write_recipe(folder, way))])
        sys.stdout.flush()
    return code


def compare(folder: Path, ways: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What every finished way came to, beside the reference, which is computed once: start and rows are the same."""
    taken, held_out, settings = rows_of(folder, ways[0], steps=STEPS)
    start = RunDir(folder / ways[0]).checkpoint(0) / "adapter"

    def reference(**how: bool) -> Outcome:
        return outcome(folder / "base", start, steps=taken, held_out=held_out, settings=settings, **how)

    expected = reference()
    found = {}
    for way in ways:
        run = RunDir(folder / way)
        saved = saved_loss(folder / "base", run.adapter, held_out, settings)
        found[way] = _differences(run, expected, saved)
    if not all(each["exact"] for each in found.values()):
        own = _own_differences(reference, expected)
        found = {way: each if each["exact"] else {**each, **own} for way, each in found.items()}
    return found


def _own_differences(reference: Callable[..., Outcome], expected: Outcome) -> dict[str, float]:
    """How far the reference is from itself: by two threads, and by one unit in the last place of every weight."""
    nudged = reference(is_nudged=True)
    torch.set_num_threads(2)
    threaded = reference()
    torch.set_num_threads(1)
    return {"own_nudged": _largest(nudged, expected), "own_threads": _largest(threaded, expected)}


def _largest(one: Outcome, other: Outcome) -> float:
    return max(
        apart(a, b) for a, b in zip((*one.losses, one.validation), (*other.losses, other.validation), strict=True)
    )


def apart(one: float, other: float) -> float:
    """The relative difference; infinite where one is no number."""
    gap = abs(one - other) / max(abs(other), 1e-12)
    return gap if math.isfinite(gap) else math.inf


def _differences(run: RunDir, expected: Outcome, saved: float) -> dict[str, Any]:
    events = read_events(run.events)
    steps = read_steps(run.events)
    validated = [event["loss"] for event in events if event["event"] == "validated"][-1]
    losses = [apart(step["loss"], loss) for step, loss in zip(steps, expected.losses, strict=True)]
    norms = [apart(step["grad_norm"], norm) for step, norm in zip(steps, expected.grad_norms, strict=True)]
    numbers = {
        "first_loss": losses[0],
        "losses": max(losses),
        "first_grad_norm": norms[0],
        "grad_norms": max(norms),
        "validation": apart(validated, expected.validation),
        "saved": apart(validated, saved),
    }
    is_exact = max(numbers["losses"], numbers["validation"], numbers["saved"]) <= EXACT
    moved = apart(expected.losses[0], expected.losses[-1])
    return {"exact": is_exact, "moved": moved, **numbers, **how_computed(run, events)}


def how_computed(run: RunDir, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whose code computed, and in what shape, by the settled recipe and the notices."""
    notices = [event["text"] for event in events if event["event"] == "notice"]
    settled = load_recipe(run.recipe, ())
    told = " ".join(notices)
    engine = settled.train.engine
    shape = "packed" if settled.data.packing else "padded"
    if settled.train.micro_batch_rows == 1 or "one row at a time" in told or "row by row" in told:
        shape = "single"
    elif engine != "fast" and ("on padded rows" in told or "rows are padded" in told):
        shape = "padded"
    return {"engine": engine, "shape": shape, "notices": notices}


def last_line(error: BaseException) -> str:
    """What a traceback ends with, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = str(error).replace("\n", " ")[:300]
    return f"{type(error).__name__}: {what} ({Path(frame.filename).name}:{frame.lineno})"
