"""Kills a real training at random moments, resumes it, and compares the end with the run left alone.

python bench/kill.py RECIPE [--runs 20] [--kills 3] [--work DIR]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.journeys.killing import steps_of, train_through_kills


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("recipe", type=Path)
    ap.add_argument("--runs", type=int, default=20)
    ap.add_argument("--kills", type=int, default=3)
    ap.add_argument("--work", type=Path)
    args = ap.parse_args()
    work = args.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)

    def place(name: str) -> tuple[Path, Path]:
        run, file = work / name, work / f"{name}.yaml"
        content = json.loads(args.recipe.read_text())
        content["output"] = {"dir": str(run)}
        file.write_text(json.dumps(content))
        return file, run

    recipe, run = place("undisturbed")
    subprocess.run([sys.executable, "-m", "fledge", "train", str(recipe)], check=True, capture_output=True)
    digest, steps = json.loads((run / "summary.json").read_text())["adapter_sha256"], steps_of(run)
    print(f"undisturbed: {len(steps)} steps, {digest[:16]}")
    moments, equal = Counter(), 0
    for number in range(args.runs):
        recipe, run = place(f"killed-{number}")
        outcome = train_through_kills(recipe, run, kills=args.kills, seed=number)
        same = outcome.summary["adapter_sha256"] == digest and outcome.steps == steps
        equal += same
        moments.update(outcome.kills)
        print(f"run {number}: killed {outcome.kills}, {'same bits' if same else 'DIFFERENT'}", flush=True)
    print(f"{equal} of {args.runs} runs ended with the same adapter_sha256 and the same events; kills: {dict(moments)}")
    sys.exit(0 if equal == args.runs else 1)


if __name__ == "__main__":
    main()
