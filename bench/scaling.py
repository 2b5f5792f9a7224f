"""Does the cost of a token stay the same as the data and the rows grow?

    python bench/scaling.py data --base DIR --file alpaca_data.json.gz [--counts 1000 10000 50000] [--steps 80]
    python bench/scaling.py length [--lengths 256 512 1024 2048 4096] [--tokens 8192] [--dtype bfloat16]

data: real trainings (`fledge train`) on the first rows of an Alpaca file, the same number of steps each; the time of
their steps for each token, the first left out, and the peak memory. Four rounds in turn, of which the fastest counts.
length: forward and backward pass of the engine over one row of that many tokens, with the time spent in attention
taken apart; four blocks of a Llama's shape with random weights.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import fledge.engine.block as block
from fledge.commands.engine import build_engine
from fledge.engine.packed import Packed, Side
from fledge.engine.run import Engine
from fledge.ops.plan import Document
from fledge.runtime.precision import TORCH_DTYPES

ROUNDS = 4


def train(base: Path, rows: list[dict], *, steps: int, folder: Path) -> dict[str, float]:
    """Microseconds a token and peak megabytes of one training in a process of its own."""
    (folder / "rows.json").write_text(json.dumps(rows))
    recipe = {
        "model": {"name_or_path": str(base), "dtype": "float32"},
        "data": {"train": {"path": str(folder / "rows.json"), "format": "alpaca"}, "max_length": 512},
        "lora": {"r": 8, "target_modules": "all-linear"},
        "train": {"max_steps": steps, "global_batch_size": 16, "micro_batch_tokens": 2048},
        "output": {"dir": str(folder / "run")},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "fledge", "train", str(folder / "recipe.yaml")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    text = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(text[-2000:])
    done = [json.loads(line) for line in (folder / "run" / "events.jsonl").open()]
    taken = [event for event in done if event["event"] == "step"][1:]
    seconds, tokens = (sum(event[key] for event in taken) for key in ("seconds", "tokens"))
    return {"us": 1e6 * seconds / tokens, "mb": used.ru_maxrss / 1000}


def by_data(args: argparse.Namespace) -> None:
    content = args.file.read_bytes()
    rows = json.loads(gzip.decompress(content) if args.file.suffix == ".gz" else content)
    found: dict[int, list[dict[str, float]]] = {count: [] for count in args.counts}
    for _ in range(ROUNDS):
        for count in args.counts:
            with tempfile.TemporaryDirectory() as folder:
                found[count].append(train(args.base.resolve(), rows[:count], steps=args.steps, folder=Path(folder)))
    print("| rows of data | us a token | to the first | peak MB |\n| --- | --- | --- | --- |")
    best = {count: min(one["us"] for one in rounds) for count, rounds in found.items()}
    for count, rounds in found.items():
        share = best[count] / best[args.counts[0]]
        print(f"| {count:,} | {best[count]:.1f} | {share:.3f} | {max(one['mb'] for one in rounds):,.0f} |")


class Watch:
    """Seconds spent within the functions of a module that are given to it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, name: str) -> None:
        timed = getattr(block, name)

        def within(*args, **options):
            start = time.perf_counter()
            try:
                return timed(*args, **options)
            finally:
                self.seconds += time.perf_counter() - start

        setattr(block, name, within)


def one_pass(engine: Engine, length: int) -> None:
    ids = torch.randint(0, 32000, (length,))
    places = torch.arange(length)
    side = Side(ids, places, (Document(0, length),))
    batch = Packed(side, places[:-1], ids[1:])
    engine.states(batch).sum().backward()


def by_length(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "num_attention_heads": 16}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, max_position_embeddings=8192, **shape))
    model = model.to(TORCH_DTYPES[args.dtype]).requires_grad_(False).eval()
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    for parameter in adapted.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    watch = Watch()
    watch.over("attend")
    watch.over("attend_gradient")
    print("| tokens of a row | us a token | in attention | apart from it | to the first | attention to the first |")
    print("| --- | --- | --- | --- | --- | --- |")
    first: tuple[float, float] | None = None
    for length in args.lengths:
        engine = build_engine(adapted, device=torch.device("cpu"), rows=length)
        one_pass(engine, length)
        count = max(1, args.tokens // length)
        whole, inside = float("inf"), 0.0
        for _ in range(ROUNDS):
            watch.seconds, start = 0.0, time.perf_counter()
            for _ in range(count):
                one_pass(engine, length)
            spent = time.perf_counter() - start
            if spent < whole:
                whole, inside = spent, watch.seconds
        each, attention = (1e6 * seconds / (count * length) for seconds in (whole, inside))
        first = first or (each - attention, attention)
        apart = each - attention
        ratios = f"{apart / first[0]:.3f} | {attention / first[1]:.2f}"
        print(f"| {length:,} | {each:.1f} | {attention:.1f} | {apart:.1f} | {ratios} |", flush=True)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:,.0f} MB")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = ap.add_subparsers(required=True)
    data = ways.add_parser("data")
    data.add_argument("--base", type=Path, required=True)
    data.add_argument("--file", type=Path, required=True)
    data.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    data.add_argument("--steps", type=int, default=80)
    data.set_defaults(run=by_data)
    length = ways.add_parser("length")
    length.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    length.add_argument("--tokens", type=int, default=8192)
    length.add_argument("--dtype", default="bfloat16", choices=TORCH_DTYPES)
    length.set_defaults(run=by_length)
    args = ap.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
