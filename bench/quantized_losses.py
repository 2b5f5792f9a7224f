"""How far the losses on a quantised base lie from those on the bfloat16 one: same adapter, same rows, same steps.

    python bench/quantized_losses.py MODEL ROWS.json [--steps 100] [--rows-per-step 16] [--lr 2e-4]

ROWS are in the alpaca format. Prints for each kind the largest and the mean relative distance of a step's loss, and of
the curve (the mean of the last ten steps).
"""

import argparse
import tempfile
from pathlib import Path

from fledge.commands.train import train
from fledge.config.recipe import Recipe
from fledge.rundir import read_steps


def losses(args: argparse.Namespace, kind: str, folder: Path) -> list[float]:
    recipe = Recipe.model_validate(
        {
            "model": {"name_or_path": args.model, "dtype": "bfloat16", "quantization": kind},
            "data": {"train": {"path": str(args.rows.resolve()), "format": "alpaca"}, "max_length": 512},
            "lora": {"r": 8, "lora_alpha": 16},
            "train": {
                "max_steps": args.steps,
                "global_batch_size": args.rows_per_step,
                "learning_rate": args.lr,
                "lr_scheduler": "constant",
                "save_every_steps": args.steps,
            },
            "output": {"dir": str(folder / kind)},
        }
    )
    return [event["loss"] for event in read_steps(train(recipe).run / "events.jsonl")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        full = losses(args, "none", Path(name))
        print(f"bfloat16: {full[0]:.4f} -> {full[-1]:.4f} in {len(full)} steps")
        for kind in ("int8", "nf4"):
            found = losses(args, kind, Path(name))
            apart = [abs(a - b) / b for a, b in zip(found, full, strict=True)]
            end, full_end = sum(found[-10:]), sum(full[-10:])
            print(
                f"{kind}: {found[0]:.4f} -> {found[-1]:.4f}; a step's loss is off by {max(apart):.3%} at most, "
                f"{sum(apart) / len(apart):.3%} on average, the last ten steps' by {abs(end - full_end) / full_end:.3%}"
            )


if __name__ == "__main__":
    main()
