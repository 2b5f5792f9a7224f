"""One GPU: Fledge and stock parts in turn on the same folder and rows, with the share of the card's matrix rate.

    python bench/gpu.py pack ROWS OUT [--length 2048] [--count 96]
    python bench/gpu.py compare --model DIR --rows FILE [--steps 6] [--rows-per-step 16] [--micro 4 ...] [--r 8]
        [--alpha 16] [--targets NAMES] [--contenders NAME ...] [--fledge="OPTIONS"] [--out FILE.json]

`pack` joins ready-made rows, {"input_ids", "labels"} a line, end to end and cuts rows of one length out of them.
Every contender of `compare` is a process of its own, and of several micro-batches each peer's fastest counts.
Operations are counted as 4 N a token, N the weights of all frozen linears with the head, whether a contender computes
them for each token or not; the card's rate is that of a product of 8,192 square matrices in bfloat16, measured in the
same run. Losses are compared with the loop's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

HERE = Path(__file__).resolve().parent
CONTENDERS = {
    "trl": ["trl"],
    "trl liger": ["trl", "--liger"],
    "trl liger, no checkpointing": ["trl", "--liger", "--no-checkpointing"],
    "loop": ["loop", "--no-checkpointing"],
    "loop, checkpointing": ["loop"],
    "loop liger": ["loop", "--liger", "--no-checkpointing"],
}


def parse() -> argparse.Namespace:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = ap.add_subparsers(dest="verb", required=True)
    pack = verbs.add_parser("pack")
    pack.add_argument("rows", type=Path)
    pack.add_argument("out", type=Path)
    pack.add_argument("--length", type=int, default=2048)
    pack.add_argument("--count", type=int, default=96)
    compare = verbs.add_parser("compare")
    compare.add_argument("--model", type=Path, required=True)
    compare.add_argument("--rows", type=Path, required=True)
    for name, value in {"steps": 6, "rows-per-step": 16, "r": 8, "alpha": 16}.items():
        compare.add_argument(f"--{name}", type=int, default=value)
    compare.add_argument("--micro", type=int, nargs="+", default=[4], help="rows at once of the peers")
    compare.add_argument("--targets", default="query_key_value")
    compare.add_argument("--contenders", nargs="*", default=list(CONTENDERS), choices=CONTENDERS)
    compare.add_argument("--fledge", default="", help="more options of engine.py")
    compare.add_argument("--out", type=Path)
    return ap.parse_args()


def pack(args: argparse.Namespace) -> None:
    """Rows of `length` tokens each."""
    ids, labels = [], []
    for line in args.rows.open():
        row = json.loads(line)
        ids += row["input_ids"]
        labels += [-100, *row["labels"][1:]]  # nothing is predicted across a seam
    with args.out.open("w") as out:
        for start in range(0, min(len(ids), args.count * args.length) - args.length + 1, args.length):
            part = slice(start, start + args.length)
            out.write(json.dumps({"input_ids": ids[part], "labels": labels[part]}) + "\n")


def matrix_rate() -> float:
    """Operations a second of a bfloat16 product, on random numbers: the median of twenty."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(25):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        marks[0].record()
        a @ b
        marks[1].record()
        torch.cuda.synchronize()
        seconds.append(marks[0].elapsed_time(marks[1]) / 1e3)
    return 2 * 8192**3 / statistics.median(seconds[5:])


def frozen_weights(model: Path) -> int:
    """Weights of all linears, the head's among them."""
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    return sum(m.weight.numel() for m in whole.modules() if isinstance(m, (torch.nn.Linear, Conv1D)))


def run(name: str, args: argparse.Namespace, out: Path) -> dict | None:
    """The contender's result, of the micro-batch that was fastest; None where none went through."""
    if name == "fledge":
        return run_once(name, [str(HERE / "engine.py"), *args.fledge.split()], args, out)
    found = []
    for micro in args.micro:
        command = [str(HERE / "gpu_peers.py"), *CONTENDERS[name], "--micro", str(micro)]
        result = run_once(f"{name}, {micro} rows at once", command, args, out)
        found += [result | {"micro": micro}] if result else []
    return max(found, key=lambda result: result["tokens_per_s"], default=None)


def run_once(name: str, command: list[str], args: argparse.Namespace, out: Path) -> dict | None:
    common = {"model": args.model, "rows": args.rows, "steps": args.steps, "rows-per-step": args.rows_per_step}
    common |= {"r": args.r, "alpha": args.alpha, "targets": args.targets, "json": out}
    options = [part for key, value in common.items() for part in (f"--{key}", str(value))]
    done = subprocess.run([sys.executable, *command, *options], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        print(f"{name} failed: {last[:300]}", flush=True)
        return None
    if "%" in done.stdout:
        print(done.stdout, flush=True)
    result = json.loads(out.read_text())
    print(f"{name}: {result['tokens_per_s']:.0f} tokens/s, {result['peak_gpu_gb']:.1f} GB", flush=True)
    return result


def table(results: dict[str, dict], rate: float, weights: int) -> str:
    lines = [
        "| contender | tokens/s | of the matrix rate | fledge is | peak GB | loss, farthest from the loop's |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    ours, reference = results["fledge"]["tokens_per_s"], results.get("loop", {}).get("losses")
    for name, found in results.items():
        pairs = list(zip(found["losses"], reference, strict=True)) if reference else []
        far = f"{max(abs(a - b) for a, b in pairs):.1e}" if pairs else "-"
        tokens = found["tokens_per_s"]
        name += f", {found['micro']} rows at once" if "micro" in found else ""
        share = f"{4 * weights * tokens / rate:.1%}"
        lines.append(
            f"| {name} | {tokens:,.0f} | {share} | {ours / tokens:.2f} x | {found['peak_gpu_gb']:.1f} | {far} |"
        )
    return "\n".join(lines)


def main() -> None:
    args = parse()
    if args.verb == "pack":
        pack(args)
        return
    wrong = [micro for micro in args.micro if args.rows_per_step % micro]
    if wrong:
        sys.exit(f"--micro {wrong[0]} does not divide --rows-per-step {args.rows_per_step}")
    rate, weights = matrix_rate(), frozen_weights(args.model)
    print(f"{torch.cuda.get_device_name()}: {rate / 1e12:.0f} TFLOP/s; {weights / 1e9:.2f} G weights", flush=True)
    torch.cuda.empty_cache()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("fledge", *args.contenders):
            found = run(name, args, Path(scratch) / "out.json")
            results |= {name: found} if found else {}
            if args.out:
                args.out.write_text(json.dumps({"rate": rate, "weights": weights} | results, indent=1))
    if "fledge" not in results:
        sys.exit("fledge failed")
    print(f"\n{args.model.name}, {args.targets}, r={args.r}, {args.rows.stem}, {args.rows_per_step} rows a step\n")
    print(table(results, rate, weights))


if __name__ == "__main__":
    main()
