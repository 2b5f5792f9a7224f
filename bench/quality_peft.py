"""The same training as Fledge's by plain transformers and peft; bench/quality.py starts it.

    python bench/quality_peft.py --base DIR --task NAME --rows FILE --seed N --out DIR

Nothing of Fledge is imported. Ids and masks come from the chat template and the length of the prompt. What Fledge
derives from a seed, the order of rows and the start of A, is written here a second time: order_of_epoch() and
start_seed(). The loop is a tuned one: a step's rows are sorted by length and padded, PEFT_MICRO_ROWS at a time.
"""

import argparse
import hashlib
import json
import math
import random
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.quality_rows import Encoded, encode, read_rows
from bench.quality_settings import ALONE, PEFT_MICRO_ROWS, TASKS, TRAINING


def order_of_epoch(seed: int, epoch: int, *, num_rows: int) -> list[int]:
    """The order in which Fledge takes the rows of a single source: Philox, keyed by a hash of what it is for."""
    key = hashlib.sha256(repr((seed, "order", 0, epoch)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little"))).permutation(num_rows).tolist()


def start_seed(seed: int) -> int:
    """torch's seed when Fledge draws A."""
    digest = hashlib.blake2b(json.dumps((seed, "adapter")).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rate_of_step(step: int, total: int, *, peak: float) -> float:
    """Step k of w warm-up steps uses k/w of the peak; then a cosine that reaches 0 one step after the last."""
    warmup = math.ceil(TRAINING.warmup_ratio * total)
    if step <= warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup - 1) / (total - warmup)))


def steps_of(num_rows: int, *, seed: int, num_epochs: int) -> list[list[int]]:
    """The rows of each optimiser step; the last step of an epoch may be smaller."""
    size = TRAINING.rows_per_step
    orders = [order_of_epoch(seed, epoch, num_rows=num_rows) for epoch in range(num_epochs)]
    return [order[start : start + size] for order in orders for start in range(0, num_rows, size)]


def adapted(base: Path, seed: int) -> Any:
    """The base with a fresh adapter, held in float32 as peft does by default."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, TRAINING.dtype), **ALONE)
    model.config.use_cache = False
    config = LoraConfig(
        r=TRAINING.r,
        lora_alpha=TRAINING.lora_alpha,
        lora_dropout=0.0,
        target_modules=TRAINING.target_modules,
        task_type="CAUSAL_LM",
    )
    first = start_seed(seed)
    random.seed(first)
    np.random.seed(first % 2**32)
    torch.manual_seed(first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, config)


def padded(rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """Ids, attention mask and labels [B, T], padded on the right."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length] = torch.tensor(row.ids)
        mask[number, :length] = 1
        labels[number, row.prompt : row.stop] = ids[number, row.prompt : row.stop]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train_step(model: Any, rows: list[Encoded], optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """One optimiser step on the mean loss of the step's trained tokens."""
    rows = sorted(rows, key=lambda row: len(row.ids))
    supervised, total = sum(row.stop - row.prompt for row in rows), 0.0
    for start in range(0, len(rows), PEFT_MICRO_ROWS):
        out = model(**padded(rows[start : start + PEFT_MICRO_ROWS]), num_items_in_batch=supervised)
        out.loss.backward()
        total += out.loss.item()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, TRAINING.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": total, "tokens": sum(len(row.ids) for row in rows), "supervised_tokens": supervised}


def train(base: Path, rows: list[Encoded], *, task: str, seed: int, out: Path) -> list[dict[str, float]]:
    """Train, save out/start and out/adapter, and return what each step did."""
    settings = TASKS[task]
    model = adapted(base, seed)
    model.save_pretrained(out / "start")
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        betas=TRAINING.adam_betas,
        eps=TRAINING.adam_eps,
        weight_decay=TRAINING.weight_decay,
        fused=True,
    )
    model.train()
    steps, done = steps_of(len(rows), seed=seed, num_epochs=settings.num_epochs), []
    for number, taken in enumerate(steps, 1):
        for group in optimizer.param_groups:
            group["lr"] = rate_of_step(number, len(steps), peak=settings.learning_rate)
        done.append(train_step(model, [rows[index] for index in taken], optimizer))
        print(f"step {number} of {len(steps)}: loss {done[-1]['loss']:.4f}", flush=True)
    model.save_pretrained(out / "adapter")
    return done


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--base", "--rows", "--out"):
        ap.add_argument(name, type=Path, required=True)
    ap.add_argument("--task", choices=list(TASKS), required=True)
    ap.add_argument("--seed", type=int, required=True)
    args = ap.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    rows = [encode(tokenizer, row["messages"]) for row in read_rows(args.rows)]
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    steps = train(args.base, rows, task=args.task, seed=args.seed, out=args.out)
    written = args.out / "steps.part"  # renamed when whole, after the adapter: the sign that this training is done
    written.write_text(json.dumps({"steps": steps, "seconds": time.perf_counter() - start}))
    written.rename(args.out / "steps.json")


if __name__ == "__main__":
    main()
