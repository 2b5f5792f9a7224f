"""The size of micro-batch that a CPU computes fastest: measured once for a model and a machine, and remembered.

The measuring happens in a process of its own (`python -m fledge.commands.measure` reads a question and prints an
answer), for a product's kernel is kept for each size that was ever tried.
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from fledge.cache import cache_root
from fledge.commands.engine import build_engine
from fledge.commands.settle import longest_row
from fledge.commands.workshop import attach_adapter
from fledge.config.recipe import Recipe
from fledge.data.batches import BatchSource, OneStep, Shape
from fledge.data.rows import Batch, Row
from fledge.engine.keeping import keeps_within
from fledge.engine.run import Engine
from fledge.events import Event, Notice
from fledge.facts import ModelFacts
from fledge.models.load import load_base
from fledge.models.load_tokenizer import load_tokenizer
from fledge.ops.grain import grain_of
from fledge.rundir import write_json
from fledge.runtime.device import make_deterministic
from fledge.training.fast_loss import as_packed

SIZES = (384, 512, 640, 768, 1024, 1536)
USUAL = 640
"""What a model too small to be worth a measurement gets, and one that cannot be measured."""
PAIR_USUAL = 2048
"""What an encoder-decoder gets: its decoder's side is a small part of a row."""
QUANTIZED_USUAL = 1024
"""What a quantised base gets: its weights are made whole for each micro-batch anew, so large ones pay, and a second
process to measure it in might not fit.
"""
SMALL = 100_000_000
"""Parameters below which the measurement would take longer than it saves."""
NEARLY = 1.03
"""The smallest size within this of the fastest is taken, for each position costs memory."""
BLOCKS = 2
"""Blocks that are timed; the others are like them."""
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What the answer depends on. `rows` are token ids as the first step has them, and of each `prompts` counts those
    before the first trained one, which every row has; all from there on count as trained.
    """

    recipe: dict[str, Any]
    threads: int
    sizes: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    prompts: tuple[int, ...]


def fastest_size(
    recipe: Recipe, facts: ModelFacts, *, rows: Sequence[Row], most: float, tell: Callable[[Event], None]
) -> int:
    """Positions of a micro-batch, at least as many as a row may have, at most `most` where that can be."""
    longest = longest_row(recipe, facts)
    sizes = tuple(size for size in SIZES if longest <= size <= most)
    is_quantized = recipe.model.quantization != "none"
    usual = max(longest, PAIR_USUAL if facts.is_encoder_decoder else QUANTIZED_USUAL if is_quantized else USUAL)
    if is_quantized:
        return max(longest, min(usual, int(most)))
    if facts.is_encoder_decoder or facts.num_parameters < SMALL or len(sizes) < 2:
        return usual
    ids = tuple(tuple(row.input_ids.tolist()) for row in rows)
    prompts = tuple(int(np.flatnonzero(row.trained)[0]) for row in rows)
    question = Question(recipe.model_dump(mode="json"), torch.get_num_threads(), sizes, ids, prompts)
    file = cache_root("sizes") / f"{_key(recipe, facts, question)}.json"
    if not file.exists():
        tell(Notice(text="measuring which size of micro-batch this machine computes fastest; once for this model"))
        answer = _ask(question)
        if answer is None:
            return usual
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, answer)
    return choose(json.loads(file.read_text(encoding="utf-8")))


def choose(seconds: dict[str, float]) -> int:
    """The smallest size that takes nearly as little time as the fastest."""
    least = min(seconds.values())
    return min(int(size) for size, spent in seconds.items() if spent <= NEARLY * least)


def _key(recipe: Recipe, facts: ModelFacts, question: Question) -> str:
    """The model's and the machine's shape, the adapter's, and about how long rows are."""
    length = round(np.mean([len(row) for row in question.rows]) / 32)
    known = [asdict(facts), recipe.model.dtype, recipe.lora.model_dump(mode="json"), question.threads, question.sizes]
    machine = [torch.__version__, torch.backends.cpu.get_cpu_capability(), platform.machine()]
    prompts = round(np.mean(question.prompts) / 32)
    text = json.dumps([known, length, prompts, len(question.rows), machine])
    return sha256(text.encode()).hexdigest()[:32]


def _ask(question: Question) -> dict[str, float] | None:
    """Seconds of a step by size; None where the other process came to nothing, for a speed is not worth a failure."""
    command = [sys.executable, "-m", "fledge.commands.measure"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(question)), capture_output=True, encoding="utf-8", errors="replace"
        )
    except OSError:
        return None
    lines = done.stdout.strip().splitlines()
    return None if done.returncode or not lines else json.loads(lines[-1])


def measure(question: Question) -> dict[str, float]:
    """Seconds that the timed blocks take over the rows, by size."""
    torch.set_num_threads(question.threads)
    recipe, device = Recipe.model_validate_json(json.dumps(question.recipe)), torch.device("cpu")
    make_deterministic(device)
    base = load_base(recipe.model, device=device)
    adapted = attach_adapter(recipe, base, tokenizer=load_tokenizer(recipe.model, recipe.data))
    whole = zip((np.array(ids, dtype=np.int32) for ids in question.rows), question.prompts, strict=True)
    rows = OneStep(tuple(Row(ids, np.arange(len(ids)) >= prompt) for ids, prompt in whole))
    found = {}
    for size in question.sizes:
        engine = build_engine(adapted.model, device=device, rows=size)
        body = replace(engine.body, blocks=engine.body.blocks[-BLOCKS:])
        few = Engine(body, engine.buffers, keeps_within(body, float("inf")), engine.grain)
        shape = Shape(size, None, is_packed=True, pad_id=0, share=True, grain=grain_of(size), has_trunk=True)
        batches = BatchSource(rows, rows, shape, rank=0, world_size=1).micro_batches(1)
        found[str(size)] = min(_seconds(few, batches) for _ in range(REPEATS))
    return found


def _seconds(engine: Engine, batches: Sequence[Batch]) -> float:
    """Of one forward and backward pass over all micro-batches, the head left out."""
    start = time.perf_counter()
    for batch in batches:
        engine.states(as_packed(batch)).sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Read a question from standard input, print the answer."""
    asked = json.loads(sys.stdin.read())
    asked |= {"rows": tuple(tuple(row) for row in asked["rows"])}
    asked |= {name: tuple(asked[name]) for name in ("sizes", "prompts")}
    sys.stdout.write(json.dumps(measure(Question(**asked))) + "\n")


if __name__ == "__main__":
    main()
