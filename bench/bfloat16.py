"""How far bfloat16 takes the losses from float32: Fledge beside a plain transformers + peft loop, over many seeds.

    python bench/bfloat16.py --base MODEL_DIR --data FILE [--seeds 8] [--steps 100] [--micro 4] [--work DIR]

One seed is one order of rows and one initial adapter. Prints each seed's mean distances, then their means and the
mean of the paired differences with its standard error, for one seed alone says nothing: the sign is noise.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.equal_losses import fledge_losses, mean_distance, recipe_of, reference


def distances(args, seed: int, work: Path) -> dict[str, float]:
    """Mean distance of a step's loss to the float32 one, for the plain loop and for Fledge, packed and padded."""
    exact_recipe = recipe_of(args, work / f"fp32-{seed}", micro=args.micro, packing=True, dtype="float32", seed=seed)
    exact = fledge_losses(exact_recipe)
    recipes = {
        name: recipe_of(args, work / f"{name}-{seed}", micro=args.micro, packing=packing, dtype="bfloat16", seed=seed)
        for name, packing in (("packed", True), ("padded", False))
    }
    found = {name: mean_distance(fledge_losses(recipe), exact) for name, recipe in recipes.items()}
    return {"plain": mean_distance(reference(args, exact_recipe, torch.bfloat16, micro=args.micro), exact), **found}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--base", type=Path, required=True)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--format", default="alpaca")
    ap.add_argument("--steps", type=int, default=100)
    ap.add_argument("--seeds", type=int, default=8)
    ap.add_argument("--first-seed", type=int, default=1)
    ap.add_argument("--micro", type=int, default=4)
    ap.add_argument("--work", type=Path)
    args = ap.parse_args()
    work = args.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        rows.append(distances(args, seed, work))
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.3e}" for name, value in rows[-1].items()), flush=True)
    for name in ("packed", "padded"):
        differences = [row[name] - row["plain"] for row in rows]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
        means = statistics.mean(row[name] for row in rows), statistics.mean(row["plain"] for row in rows)
        print(
            f"{name} {means[0]:.3e}, plain {means[1]:.3e}: "
            f"difference {statistics.mean(differences):+.1e} +- {error:.1e}"
        )


if __name__ == "__main__":
    main()
