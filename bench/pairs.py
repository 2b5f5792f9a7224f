"""Encoder-decoders: Fledge, transformers' Seq2SeqTrainer with peft, and the floor, in turn on the same rows.

    python bench/pairs.py rows SAMSUM_JSON TOKENIZER_DIR OUT.jsonl [--count 256] [--max-length 512] [--max-target 128]
    python bench/pairs.py compare --model DIR --rows OUT.jsonl [--steps 4] [--rows-per-step 16] [--r 16] [--alpha 32]
        [--targets q,v] [--dtype bfloat16] [--lr 2e-4] [--repeat-rows] [--skip trainer] [--out FILE.json]
    python bench/pairs.py fledge|trainer|floor (as compare) --json OUT

The contender is as fast as stock parts allow: rows of like length lie together (the rows file is written in the order
that a sampler grouping by length would take them), weights in bfloat16, no dropout, no checkpointing, fused AdamW, a
step's rows in one batch.
The floor counts the matrix products alone: an encoder's linears on source tokens, a decoder's on target tokens, what a
decoder makes of the encoder's output on source tokens, the head on target tokens; 4 operations a weight and token.
Tokens are source and target together. The first step is left out of the rate.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from engine import InOrder, run_steps
from peft import LoraConfig, get_peft_model
from torch.utils.data import SequentialSampler
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from fledge.commands.engine import build_engine
from fledge.config.model import ModelConfig
from fledge.data.batches import BatchSource, Shape
from fledge.data.rows import Row
from fledge.models.beside import ALONE
from fledge.models.load import load_base
from fledge.ops.grain import GRAIN
from fledge.runtime.device import choose_device, make_deterministic
from fledge.runtime.precision import TORCH_DTYPES
from fledge.training.fast_loss import FastLoss

MEGABATCH = 50
"""Batches that a sampler which groups by length sorts at once."""


def write_rows(args: argparse.Namespace) -> None:
    """Real dialogues and summaries as ids, drawn with a fixed seed, neighbours of like length."""
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    records = [r for r in json.loads(args.source.read_text()) if r["dialogue"].strip()]
    chosen = random.Random(0).sample(records, min(args.count, len(records)))
    rows = [
        {
            "input_ids": tokenizer("summarize: " + record["dialogue"]).input_ids,
            "labels": tokenizer(text_target=record["summary"]).input_ids,
        }
        for record in chosen
    ]
    rows = [r for r in rows if len(r["input_ids"]) <= args.max_length and len(r["labels"]) <= args.max_target]
    rows.sort(key=lambda row: len(row["input_ids"]), reverse=True)
    batches = [rows[n : n + args.batch] for n in range(0, len(rows) - args.batch + 1, args.batch)]
    random.Random(1).shuffle(batches)
    args.out.write_text("".join(json.dumps(row) + "\n" for batch in batches for row in batch))


def read_rows(args: argparse.Namespace) -> list[dict]:
    """The rows of all steps in order."""
    rows = [json.loads(line) for line in args.rows.open()]
    steps = 1 if args.repeat_rows else args.steps
    rows = rows[: steps * args.rows_per_step]
    return rows * (args.steps // steps)


def num_tokens(rows: list[dict]) -> int:
    return sum(len(row["input_ids"]) + len(row["labels"]) for row in rows)


def adapter(args: argparse.Namespace) -> LoraConfig:
    targets = args.targets.split(",")
    return LoraConfig(r=args.r, lora_alpha=args.alpha, target_modules=targets, task_type="SEQ_2_SEQ_LM")


def finish(args: argparse.Namespace, name: str, rate: float, losses: list[float]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    result = {"contender": name, "tokens_per_s": rate, "peak_rss_gb": peak, "losses": losses}
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result))


class ReadyPairs:
    """Rows of a file as the token store holds them: source and target one after the other."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows
        self.lengths = np.array([len(row["input_ids"]) + len(row["labels"]) for row in rows], dtype=np.int32)

    def row(self, index: int) -> Row:
        source, target = self.rows[index]["input_ids"], self.rows[index]["labels"]
        return Row(np.array([*source, *target], np.int32), np.arange(len(source) + len(target)) >= len(source))

    def __len__(self) -> int:
        return len(self.rows)


def fledge(args: argparse.Namespace) -> None:
    """Through the real training step."""
    device = choose_device("cpu", local_rank=0)
    make_deterministic(device)
    base = load_base(ModelConfig(name_or_path=str(args.model), dtype=args.dtype), device=device)
    torch.manual_seed(0)
    model = get_peft_model(base.model, adapter(args)).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    rows = ReadyPairs(read_rows(args))
    start = base.model.config.decoder_start_token_id
    shape = Shape(args.micro_tokens, None, True, 0, False, GRAIN, start)
    source = BatchSource(rows, InOrder(args.rows_per_step, repeats=False), shape, rank=0, world_size=1)
    engine = build_engine(model, device=device, rows=args.micro_tokens, longest=int(rows.lengths.max()))
    loss_of = FastLoss(lambda batch: None, engine)
    finish(args, "fledge", *run_steps(model, source, loss_of, args, device=device))


class Clock(TrainerCallback):
    """Seconds and loss of each step."""

    def __init__(self) -> None:
        self.spans: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, *_, **__) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__) -> None:
        self.spans.append(time.perf_counter() - self.start)

    def on_log(self, args, state, control, logs=None, **_) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


class Ordered(Seq2SeqTrainer):
    """Rows as they lie: the file has them grouped by length."""

    def _get_train_sampler(self, *_, **__):
        return SequentialSampler(self.train_dataset)


def trainer(args: argparse.Namespace) -> None:
    """transformers' own trainer with peft."""
    dtype = getattr(torch, args.dtype)
    model = AutoModelForSeq2SeqLM.from_pretrained(args.model, dtype=dtype, dropout_rate=0.0, **ALONE)
    model.config.use_cache = False
    torch.manual_seed(0)
    model = get_peft_model(model, adapter(args), autocast_adapter_dtype=False)
    rows, clock = read_rows(args), Clock()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    settings = Seq2SeqTrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.rows_per_step,
        max_steps=args.steps,
        bf16=args.dtype == "bfloat16",
        use_cpu=True,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        learning_rate=args.lr,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=0.0,
        remove_unused_columns=False,
    )
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    Ordered(
        model=model, args=settings, train_dataset=Dataset.from_list(rows), data_collator=collator, callbacks=[clock]
    ).train()
    finish(args, "trainer", num_tokens(rows[args.rows_per_step :]) / sum(clock.spans[1:]), clock.losses)


def best(f, repeat: int = 6) -> float:
    f()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return min(times)


def seconds_per_row(rows: int, weight: torch.nn.Linear) -> float:
    """Of one row forward and for its input gradient."""
    x = torch.randn(rows, weight.in_features, dtype=torch.bfloat16)
    w = torch.randn(weight.out_features, weight.in_features, dtype=torch.bfloat16)
    y, g = torch.empty(rows, weight.out_features, dtype=torch.bfloat16), torch.empty_like(x)
    return (best(lambda: torch.mm(x, w.t(), out=y)) + best(lambda: torch.mm(y, w, out=g))) / rows


def floor(args: argparse.Namespace) -> None:
    """The time that the matrix products alone would take."""
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(args.model))
    rows = read_rows(args)[args.rows_per_step :]
    sources, targets = (sum(len(row[name]) for row in rows) for name in ("input_ids", "labels"))
    head, known, spent = model.get_output_embeddings(), {}, 0.0
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        of_source = name.startswith("encoder.") or name.endswith(("EncDecAttention.k", "EncDecAttention.v"))
        key = (module.out_features, module.in_features)
        if key not in known:
            known[key] = seconds_per_row(256 if module is head else 1024, module)
        spent += known[key] * (sources if of_source else targets)
    finish(args, "floor", num_tokens(rows) / spent, [])


def compare(args: argparse.Namespace) -> None:
    """Each in a process of its own, and the table."""
    weights = sum(file.stat().st_size for file in args.model.glob("*.safetensors")) / 1024e6
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("floor", "fledge", "trainer"):
            if name in args.skip:
                continue
            out = Path(folder) / f"{name}.json"
            given = [a for a in sys.argv[2:] if a != "--skip" and a not in args.skip]
            done = subprocess.run(
                [sys.executable, __file__, name, *given, "--json", str(out)], capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
            results[name] = json.loads(out.read_text())
            print(f"{name}: {results[name]['tokens_per_s']:.0f} tokens/s", flush=True)
    theirs, ours = results.get("trainer", {}), results["fledge"]
    for name, result in results.items():
        share = f"{result['tokens_per_s'] / results['floor']['tokens_per_s']:.0%}" if "floor" in results else "-"
        beyond = result["peak_rss_gb"] - weights
        pairs = zip(result["losses"], theirs.get("losses", []), strict=False)
        far = max((abs(a - b) for a, b in pairs), default=float("nan"))
        times = ours["tokens_per_s"] / result["tokens_per_s"]
        print(
            f"| {name} | {result['tokens_per_s']:.0f} | {share} | {times:.2f} x | {result['peak_rss_gb']:.2f} | "
            f"{beyond:.2f} | {far:.1e} |"
        )
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = ap.add_subparsers(required=True)
    rows = ways.add_parser("rows")
    rows.add_argument("source", type=Path)
    rows.add_argument("tokenizer", type=Path)
    rows.add_argument("out", type=Path)
    rows.add_argument("--count", type=int, default=256)
    rows.add_argument("--batch", type=int, default=16)
    rows.add_argument("--max-length", type=int, default=512)
    rows.add_argument("--max-target", type=int, default=128)
    rows.set_defaults(run=write_rows)
    for name, run in (("compare", compare), ("fledge", fledge), ("trainer", trainer), ("floor", floor)):
        way = ways.add_parser(name)
        way.add_argument("--model", type=Path, required=True)
        way.add_argument("--rows", type=Path, required=True)
        way.add_argument("--steps", type=int, default=4)
        way.add_argument("--rows-per-step", type=int, default=16)
        way.add_argument("--r", type=int, default=16)
        way.add_argument("--alpha", type=int, default=32)
        way.add_argument("--targets", default="q,v")
        way.add_argument("--dtype", default="bfloat16", choices=TORCH_DTYPES)
        way.add_argument("--lr", type=float, default=2e-4)
        way.add_argument("--micro-tokens", type=int, default=2048)
        way.add_argument("--repeat-rows", action="store_true")
        way.add_argument("--skip", nargs="*", default=[], choices=["trainer", "floor"])
        way.add_argument("--out", type=Path)
        way.add_argument("--json", type=Path)
        way.set_defaults(run=run)
    args = ap.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
