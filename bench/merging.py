"""Merges a rank-8 adapter that was trained on a quantised base, onto the dequantised and onto the full base.

    python bench/merging.py MODEL ROWS.json [--steps 60] [--lr 1e-3]

ROWS are in the alpaca format. Prints, for each kind, how far each merge is from the trained model, how far training
moved the model at all, and which one `fledge export` takes.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from fledge.commands.export import export
from fledge.commands.train import train
from fledge.config.recipe import Recipe


def certificate(args: argparse.Namespace, kind: str, folder: Path) -> dict[str, Any]:
    recipe = Recipe.model_validate(
        {
            "model": {"name_or_path": args.model, "dtype": "bfloat16", "quantization": kind},
            "data": {"train": {"path": str(args.rows.resolve()), "format": "alpaca"}, "max_length": 512},
            "lora": {"r": 8, "lora_alpha": 16},
            "train": {
                "max_steps": args.steps,
                "global_batch_size": 16,
                "learning_rate": args.lr,
                "save_every_steps": args.steps,
            },
            "output": {"dir": str(folder / kind)},
        }
    )
    return export(train(recipe).run, folder / f"{kind}-merged", to="hf").certificate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    print("| base | onto | mean KL to the trained model | largest logit difference | training moved it by | taken |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        for kind in ("int8", "nf4"):
            checks = certificate(args, kind, Path(name))["checks"]
            choice, effect = checks["choice"], checks["effect"]["mean_kl"]
            for onto in ("dequantized", "full"):
                found, mark = choice[onto], "yes" if choice["onto"] == onto else ""
                print(f"| {kind} | {onto} | {found['mean_kl']:.2g} | {found['max_abs']:.2g} | {effect:.2g} | {mark} |")


if __name__ == "__main__":
    main()
