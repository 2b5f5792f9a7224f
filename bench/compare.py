"""Fledge, the contenders and the floor in turn, on one model folder and the same rows; prints the table.

    python bench/compare.py --model DIR --rows FILE --peers DIR --peers-python PYTHON [--steps 4] [--rows-per-step 16]
        [--r 8] [--alpha 16] [--targets query_key_value] [--skip trl] [--repeat-rows] [--lr 2e-4] [--dtype bfloat16]
        [--out FILE.json]

`--peers` holds peer_hf.py, peer_trl.py and floor.py; `--peers-python` is the environment they run in. Every contender
is a process of its own, one after the other, so that the machine is the same for all. Losses are compared step by step
with the tuned loop's; in half precision Fledge runs a second time with the loop's rounding (as_peft.py) and torch's own
operations, for with its own it is nearer to float32 than the loop.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def parse() -> argparse.Namespace:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", type=Path, required=True)
    ap.add_argument("--rows", type=Path, required=True)
    ap.add_argument("--peers", type=Path, required=True)
    ap.add_argument("--peers-python", default=sys.executable)
    ap.add_argument("--steps", type=int, default=4)
    ap.add_argument("--rows-per-step", type=int, default=16)
    ap.add_argument("--r", type=int, default=8)
    ap.add_argument("--alpha", type=int, default=16)
    ap.add_argument("--targets", default="query_key_value")
    ap.add_argument("--lr", default="2e-4")
    ap.add_argument("--dtype", default="bfloat16")
    ap.add_argument("--repeat-rows", action="store_true")
    ap.add_argument("--skip", nargs="*", default=[], choices=["as peft", "hf", "trl", "floor"])
    ap.add_argument("--out", type=Path)
    return ap.parse_args()


def command(args: argparse.Namespace, name: str, out: Path) -> list[str]:
    """How a contender is run."""
    work = ["--model", str(args.model), "--rows", str(args.rows), "--steps", str(args.steps)]
    work += ["--rows-per-step", str(args.rows_per_step), "--json", str(out)]
    lora = ["--r", str(args.r), "--alpha", str(args.alpha), "--targets", args.targets, "--lr", args.lr]
    same = ["--dtype", args.dtype, *(["--repeat-rows"] if args.repeat_rows else [])]
    return {
        "fledge": [sys.executable, str(HERE / "engine.py"), *work, *lora, *same],
        "as peft": [sys.executable, str(HERE / "engine.py"), *work, *lora, *same, "--as-peft", "--unfused"],
        "hf": [args.peers_python, str(args.peers / "peer_hf.py"), *work, *lora, *same, "--micro", "4"],
        "trl": [args.peers_python, str(args.peers / "peer_trl.py"), *work, *lora, "--micro", "4"],
        "floor": [args.peers_python, str(args.peers / "floor.py"), *work],
    }[name]


def run(args: argparse.Namespace, name: str, folder: Path) -> dict:
    out = folder / f"{name}.json"
    done = subprocess.run(command(args, name, out), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    result = json.loads(out.read_text())
    print(f"{name}: {result['tokens_per_s']:.0f} tokens/s", flush=True)
    return result


def weights_gb(model: Path) -> float:
    """Size of the base's weights, in the contenders' unit."""
    return sum(file.stat().st_size for file in model.glob("*.safetensors")) / 1024e6


def table(results: dict[str, dict], weights: float) -> str:
    floor, ours = results.get("floor", {}).get("tokens_per_s"), results["fledge"]["tokens_per_s"]
    lines = [
        "| contender | tokens/s | of the floor | fledge is | peak GB | beyond the weights | loss, farthest from hf |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        rate, peak = result["tokens_per_s"], result.get("peak_rss_gb", result.get("peak_gpu_gb"))
        share = f"{rate / floor:.0%}" if floor else "-"
        beyond = "-" if peak is None else f"{peak - weights:.2f}"
        losses, reference = result.get("losses"), results.get("hf", {}).get("losses")
        far = f"{max(abs(a - b) for a, b in zip(losses, reference, strict=False)):.1e}" if losses and reference else "-"
        gb = "-" if peak is None else f"{peak:.2f}"
        lines.append(f"| {name} | {rate:.0f} | {share} | {ours / rate:.2f} x | {gb} | {beyond} | {far} |")
    return "\n".join(lines)


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory() as scratch:
        skipped = {*args.skip, *(["as peft"] if args.dtype == "float32" else [])}
        names = [name for name in ("floor", "fledge", "as peft", "hf", "trl") if name not in skipped]
        results = {name: run(args, name, Path(scratch)) for name in names}
    print(f"\n{args.model.name}, {args.targets}, r={args.r}, {args.rows_per_step} rows a step, {args.dtype}\n")
    print(table(results, weights_gb(args.model)))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
