"""Fledge's per-step losses beside a plain transformers + peft loop's, on real rows.

    python bench/equal_losses.py --base MODEL_DIR --data FILE [--format alpaca] [--steps 100] [--work DIR]

Trains the same rows from the same initial adapter (r=8, all-linear) with micro-batches of 1, 4 and 16 rows, packed
and not, in float32, then once in bfloat16; prints the largest distance of a step's loss and the mean distances.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fledge.commands.steps import row_order
from fledge.commands.train import train
from fledge.config.load import load_recipe
from fledge.data.pipeline import prepare_training
from fledge.models.load_tokenizer import load_tokenizer
from fledge.rundir import RunDir, read_steps
from tests.numbers.plain import plain_losses

RATE = 1e-3


def recipe_of(args, run: Path, *, micro: int, packing: bool, dtype: str, seed: int = 42):
    content = {
        "model": {"name_or_path": str(args.base.resolve()), "dtype": dtype},
        "data": {"train": {"path": str(args.data.resolve()), "format": args.format}, "packing": packing},
        "lora": {"r": 8, "lora_alpha": 16},
        "train": {
            "global_batch_size": 16,
            "micro_batch_rows": micro,
            "max_steps": args.steps,
            "seed": seed,
            "learning_rate": RATE,
            "lr_scheduler": "constant",
            "warmup_steps": 0,
            "save_every_steps": 10_000,
            "keep_checkpoints": 5,
        },
        "output": {"dir": str(run)},
    }
    file = run.with_suffix(".yaml")
    file.write_text(json.dumps(content))
    return load_recipe(file, ())


def fledge_losses(recipe) -> list[float]:
    start = time.perf_counter()
    train(recipe)
    losses = [event["loss"] for event in read_steps(RunDir(Path(recipe.output.dir)).events)]
    print(f"  {Path(recipe.output.dir).name}: {time.perf_counter() - start:.0f} s", flush=True)
    return losses


def reference(args, recipe, dtype: torch.dtype, *, micro: int = 4) -> list[float]:
    tokenizer = load_tokenizer(recipe.model, recipe.data)
    data = prepare_training(recipe.data, tokenizer, seed=recipe.train.seed, progress=lambda done, total: None)
    order = row_order(recipe, data)
    steps = []
    for step in range(1, args.steps + 1):
        rows = [data.train.row(index) for index in order.rows_of_step(step)]
        steps.append([(row.input_ids.tolist(), row.trained.tolist()) for row in rows])
    adapter = RunDir(Path(recipe.output.dir)).checkpoint(0) / "adapter"
    return plain_losses(args.base, adapter, steps, learning_rate=RATE, micro=micro, dtype=dtype)


def mean_distance(a: list[float], b: list[float]) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--base", type=Path, required=True)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--format", default="alpaca")
    ap.add_argument("--steps", type=int, default=100)
    ap.add_argument("--work", type=Path)
    args = ap.parse_args()
    work = args.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    exact = None
    for packing in (False, True):
        for micro in (1, 4, 16):
            recipe = recipe_of(args, work / f"fp32-{micro}-{packing}", micro=micro, packing=packing, dtype="float32")
            losses = fledge_losses(recipe)
            exact = exact or reference(args, recipe, torch.float32)
            worst = max(abs(a - b) for a, b in zip(losses, exact, strict=True))
            print(f"float32, {micro:2d} rows, packing {packing}: largest distance {worst:.2e} over {len(losses)} steps")
    assert exact is not None
    for micro in (1, 4, 16):
        for packing in (False, True):
            name = f"bf16-{micro}-{packing}"
            recipe = recipe_of(args, work / name, micro=micro, packing=packing, dtype="bfloat16")
            ours = mean_distance(fledge_losses(recipe), exact)
            print(
                f"bfloat16, {micro:2d} rows, packing {packing}: mean distance to the float32 losses {ours:.3e}",
                flush=True,
            )
        plain = mean_distance(reference(args, recipe, torch.bfloat16, micro=micro), exact)
        print(f"bfloat16, {micro:2d} rows, plain loop: mean distance to float32 {plain:.3e}", flush=True)
    print(f"losses: {exact[0]:.4f} -> {exact[-1]:.4f}")


if __name__ == "__main__":
    main()
