"""Fledge's engine on ready-made rows, as the contenders are run: the same JSON, through the real training step.

    python bench/engine.py --model DIR --rows FILE --steps N --rows-per-step K --r 8 --alpha 16 --targets NAMES
        [--dtype bfloat16] [--lr 2e-4] [--repeat-rows] [--micro-tokens auto] [--plain | --compiled | --as-peft]
        [--no-share] [--no-trunk] [--unfused] [--keep-gb GB] [--profile] [--json OUT]

Rows are {"input_ids", "labels"}, one a line, taken in order. A is drawn by peft after torch.manual_seed(0); constant
learning rate, AdamW without decay, clipping at 1. The first step is left out of the rate, and one that is profiled.
`--unfused` leaves out the fused kernels; on a GPU `--profile` prints which kernels the last step's time went to.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.as_peft import hold_in_format, rounding_as_peft
from fledge.commands.engine import build_engine
from fledge.commands.settle import GPU_TOKENS
from fledge.config.model import ModelConfig
from fledge.config.train import TrainConfig
from fledge.data.batches import BatchSource, Shape
from fledge.data.rows import Row
from fledge.engine.block import Keep
from fledge.engine.keeping import kept_bytes
from fledge.models.compiling import compiled_blocks
from fledge.models.documents import documents_apart
from fledge.models.load import load_base
from fledge.ops.choice import unfused
from fledge.ops.grain import grain_of
from fledge.runtime.device import choose_device, make_deterministic
from fledge.runtime.memory import available_bytes, peak_bytes
from fledge.runtime.mesh import OneRank
from fledge.runtime.precision import TORCH_DTYPES, scaler_for
from fledge.training.fast_loss import FastLoss
from fledge.training.loss import CausalLoss, to_device
from fledge.training.optimizer import build_optimizer
from fledge.training.step import train_step

KEPT = 330e6
GPU_SHARE = 0.6
"""Of a GPU's free memory, for saved activations."""
UNIT = 1e9 if torch.cuda.is_available() else 1024e6
"""The contenders divide kibibytes by a million."""


class ReadyRows:
    """Rows of a file of input_ids and labels."""

    def __init__(self, file: Path) -> None:
        self.rows = [json.loads(line) for line in file.open()]
        self.lengths = np.array([len(row["input_ids"]) for row in self.rows], dtype=np.int32)

    def row(self, index: int) -> Row:
        found = self.rows[index]
        return Row(np.array(found["input_ids"], np.int32), np.array([x != -100 for x in found["labels"]]))

    def __len__(self) -> int:
        return len(self.rows)


class InOrder:
    """Step n takes the n-th rows of the file, or the first ones again."""

    def __init__(self, rows_per_step: int, *, repeats: bool) -> None:
        self.rows_per_step, self.repeats = rows_per_step, repeats

    def rows_of_step(self, step: int) -> tuple[int, ...]:
        first = 0 if self.repeats else (step - 1) * self.rows_per_step
        return tuple(range(first, first + self.rows_per_step))


def modest_budget(model) -> int:
    """Bytes for saved activations, so that all beyond the base is within a gigabyte: the more is trained, the less."""
    return int(KEPT) - 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def modest_size(model) -> int:
    """The largest micro-batch, up to 640 positions, whose saved activations keep to the budget. Where a row is longer,
    blocks save less of it.
    """
    blocks, budget = build_engine(model, device=torch.device("cpu"), rows=0).body.blocks, modest_budget(model)
    sizes = [size for size in range(256, 641, 32) if sum(kept_bytes(b, Keep.ALL, rows=size) for b in blocks) <= budget]
    return max(sizes, default=256)


def plain_loss(model, base, stack: contextlib.ExitStack) -> CausalLoss:
    """The library's own modules, packed, whose documents are kept apart until `stack` is closed."""
    documents = stack.enter_context(documents_apart(model.get_base_model()))

    def announce(batch) -> None:
        documents.lengths = batch.lengths

    return CausalLoss(announce, needs_positions=base.facts.takes_positions, needs_mask=False)


def parse() -> argparse.Namespace:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", type=Path, required=True)
    ap.add_argument("--rows", type=Path, required=True)
    ap.add_argument("--steps", type=int, default=4)
    ap.add_argument("--rows-per-step", type=int, default=32)
    ap.add_argument("--r", type=int, default=8)
    ap.add_argument("--alpha", type=int, default=16)
    ap.add_argument("--targets", default="query_key_value")
    ap.add_argument("--dtype", default="bfloat16", choices=TORCH_DTYPES)
    ap.add_argument("--lr", type=float, default=2e-4)
    ap.add_argument("--repeat-rows", action="store_true")
    ap.add_argument("--micro-tokens", default="auto")
    ap.add_argument("--quantization", default="none", choices=("none", "int8", "nf4"))
    ap.add_argument("--keep-dequantized", action="store_true")
    which = ap.add_mutually_exclusive_group()
    which.add_argument("--plain", action="store_true", help="the library's own modules instead of the engine")
    which.add_argument("--compiled", action="store_true", help="the library's own modules, each block compiled")
    which.add_argument("--as-peft", action="store_true", help="the engine with the rounding of peft's layers")
    ap.add_argument("--no-share", action="store_true", help="compute equal beginnings once for each row")
    ap.add_argument("--no-trunk", action="store_true", help="compute equal beginnings once for each micro-batch")
    ap.add_argument("--unfused", action="store_true", help="without the fused kernels")
    ap.add_argument("--keep-gb", type=float, help="what saved activations may take; by default what suits the device")
    ap.add_argument("--profile", action="store_true", help="the last step's kernels, on a GPU")
    ap.add_argument("--json", type=Path)
    return ap.parse_args()


@contextlib.contextmanager
def profiled():
    """Prints the kernels of what happens within, by the time that the GPU spends in them."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        yield
        torch.cuda.synchronize()
    kernels = [e for e in profile.key_averages() if e.device_type == torch.profiler.DeviceType.CUDA]
    total = sum(e.self_device_time_total for e in kernels)
    print(f"{total / 1e3:.1f} ms in {sum(e.count for e in kernels)} kernels")
    for e in sorted(kernels, key=lambda e: -e.self_device_time_total)[:28]:
        print(
            f"{e.self_device_time_total / total:6.1%} {e.self_device_time_total / 1e3:9.2f} ms {e.count:6} {e.key[:90]}"
        )


def sizes_of(model, args: argparse.Namespace, device: torch.device, *, longest: int) -> tuple[int, float]:
    """Positions of a micro-batch, and bytes that its saved activations may take."""
    if device.type == "cuda":
        micro, budget = max(GPU_TOKENS, longest), GPU_SHARE * available_bytes(device)
    else:
        micro, budget = modest_size(model), modest_budget(model)
    micro = micro if args.micro_tokens == "auto" else int(args.micro_tokens)
    return micro, budget if args.keep_gb is None else args.keep_gb * 1e9


def run_steps(model, source: BatchSource, loss_of, args: argparse.Namespace, *, device) -> tuple[float, list[float]]:
    """Tokens a second and the loss of each step, through the real training step; the rate is without the first step
    and a profiled one.
    """
    optimizer = build_optimizer(model.named_parameters(), TrainConfig(learning_rate=args.lr), b_lr_ratio=None)
    losses, spans, tokens = [], [], []
    for step in range(1, args.steps + 1):
        start = time.perf_counter()
        batches = [to_device(batch, device) for batch in source.micro_batches(step)]
        mesh, scaler = OneRank(), scaler_for(TORCH_DTYPES[args.dtype])
        with profiled() if getattr(args, "profile", False) and step == args.steps else contextlib.nullcontext():
            done = train_step(
                model, batches, loss_of, optimizer, mesh=mesh, scaler=scaler, max_norm=1.0, watch=lambda: None
            )
        if getattr(args, "as_peft", False):
            hold_in_format(model, TORCH_DTYPES[args.dtype])
        spans.append(time.perf_counter() - start)
        losses.append(done.loss)
        tokens.append(done.tokens)
        print(f"step {step} loss {done.loss:.4f} {spans[-1]:.2f}s", flush=True)
    timed = slice(1, len(spans) - getattr(args, "profile", False))
    return (sum(tokens[timed]) / sum(spans[timed]) if spans[timed] else None), losses


def main() -> None:
    args = parse()
    device = choose_device("auto", local_rank=0)
    make_deterministic(device)
    held = {"quantization": args.quantization, "keep_dequantized": args.keep_dequantized}
    base = load_base(ModelConfig(name_or_path=str(args.model), dtype=args.dtype, **held), device=device)
    torch.manual_seed(0)
    targets = args.targets if args.targets == "all-linear" else args.targets.split(",")
    config = LoraConfig(r=args.r, lora_alpha=args.alpha, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(base.model, config).eval()
    rows, is_plain = ReadyRows(args.rows), args.plain or args.compiled
    longest = int(rows.lengths.max())
    micro, budget = sizes_of(model, args, device, longest=longest)
    share, has_trunk = not (is_plain or args.no_share), device.type == "cpu" and not args.no_trunk
    shape = Shape(
        micro, None, is_packed=True, pad_id=0, share=share, grain=grain_of(micro), has_trunk=share and has_trunk
    )
    source = BatchSource(rows, InOrder(args.rows_per_step, repeats=args.repeat_rows), shape, rank=0, world_size=1)
    with contextlib.ExitStack() as stack:
        if is_plain:
            loss_of = plain_loss(model, base, stack)
        else:
            engine = build_engine(model, device=device, rows=micro, longest=longest, budget=budget)
            loss_of = FastLoss(lambda batch: None, engine)
        if args.as_peft:
            stack.enter_context(rounding_as_peft())
        stack.enter_context(compiled_blocks(model, is_on=args.compiled))
        if args.unfused:
            stack.enter_context(unfused())
        rate, losses = run_steps(model, source, loss_of, args, device=device)
    peak = "peak_gpu_gb" if device.type == "cuda" else "peak_rss_gb"
    result = {"contender": "fledge", "tokens_per_s": rate, peak: peak_bytes(device) / UNIT, "losses": losses}
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
