"""Stock parts on one GPU, on ready-made rows: trl's SFTTrainer with peft, or a written loop; with liger or not.

    python bench/gpu_peers.py trl|loop --model DIR --rows FILE --steps N --rows-per-step K --micro M [--liger]
        [--no-checkpointing] [--r 8] [--alpha 16] [--targets NAMES] [--lr 2e-4] [--json OUT]

trl: every default that is not named here, gradient checkpointing among them. loop: rows sorted by length inside a step,
fused AdamW, adapters in the base's format. Both in bfloat16 with the library's scaled-dot-product attention. Prints the
JSON of the other benches: tokens of real text per second without the first two steps, and what torch reserved at most.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

WARM = 2
ALONE = {"adapter_kwargs": {"subfolder": ".no-adapter"}}  # an adapter beside the base's weights is not loaded


def parse() -> argparse.Namespace:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("kind", choices=["trl", "loop"])
    ap.add_argument("--model", required=True)
    ap.add_argument("--rows", type=Path, required=True)
    ap.add_argument("--steps", type=int, default=6)
    ap.add_argument("--rows-per-step", type=int, default=16)
    ap.add_argument("--micro", type=int, default=4)
    ap.add_argument("--liger", action="store_true")
    ap.add_argument("--no-checkpointing", action="store_true")
    ap.add_argument("--r", type=int, default=8)
    ap.add_argument("--alpha", type=int, default=16)
    ap.add_argument("--targets", default="query_key_value")
    ap.add_argument("--lr", type=float, default=2e-4)
    ap.add_argument("--json", type=Path)
    args = ap.parse_args()
    if args.steps <= WARM:
        ap.error(f"--steps {args.steps}: the first {WARM} are left out of the rate")
    return args


def lora_of(args: argparse.Namespace) -> LoraConfig:
    targets = args.targets if args.targets == "all-linear" else args.targets.split(",")
    return LoraConfig(r=args.r, lora_alpha=args.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")


def padded(rows: list[dict], key: str, fill: int) -> torch.Tensor:
    width = max(len(row["input_ids"]) for row in rows)
    return torch.tensor([row[key] + [fill] * (width - len(row[key])) for row in rows]).cuda()


def by_loop(model, rows: list[dict], args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds and losses of each step."""
    torch.manual_seed(0)
    model = get_peft_model(model.cuda(), lora_of(args), autocast_adapter_dtype=False)
    if not args.no_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=0.0, fused=True)
    spans, losses = [], []
    for step in range(args.steps):
        part = rows[step * args.rows_per_step : (step + 1) * args.rows_per_step]
        part = sorted(part, key=lambda row: len(row["input_ids"]))
        count = sum(label != -100 for row in part for label in row["labels"][1:])
        start, total = time.perf_counter(), 0.0
        for at in range(0, len(part), args.micro):
            some = part[at : at + args.micro]
            mask = [{"mask": [1] * len(row["input_ids"])} | row for row in some]
            batch = {"input_ids": padded(some, "input_ids", 0), "labels": padded(some, "labels", -100)}
            loss = model(**batch, attention_mask=padded(mask, "mask", 0), num_items_in_batch=count).loss
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total))
        spans.append(time.perf_counter() - start)
    return spans, losses


class Clock(TrainerCallback):
    """When steps begin and end, with the device waited for."""

    def __init__(self) -> None:
        self.spans, self.losses = [], []

    def on_step_begin(self, *_, **__) -> None:
        torch.cuda.synchronize()
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__) -> None:
        torch.cuda.synchronize()
        self.spans.append(time.perf_counter() - self.start)

    def on_log(self, *_, logs=None, **__) -> None:
        self.losses += [float(logs["loss"])] if logs and "loss" in logs else []


def by_trl(model, rows: list[dict], args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds and losses of each step."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_, **__):
            return SequentialSampler(self.train_dataset)

    torch.manual_seed(0)
    tokenizer, clock = AutoTokenizer.from_pretrained(args.model), Clock()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.micro,
        gradient_accumulation_steps=args.rows_per_step // args.micro,
        max_steps=args.steps,
        bf16=True,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        learning_rate=args.lr,
        lr_scheduler_type="constant",
        max_length=None,
        gradient_checkpointing=not args.no_checkpointing,
        use_liger_kernel=args.liger,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )
    data = Dataset.from_list([{key: row[key] for key in ("input_ids", "labels")} for row in rows])
    trainer = InOrder(
        model=model, args=config, train_dataset=data, processing_class=tokenizer, peft_config=lora_of(args),
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    return clock.spans, clock.losses


def main() -> None:
    args = parse()
    rows = [json.loads(line) for line in args.rows.open()][: args.steps * args.rows_per_step]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16, device_map="cuda", **ALONE)
    model.config.use_cache = False
    if args.liger and args.kind == "loop":
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=model)
    spans, losses = (by_trl if args.kind == "trl" else by_loop)(model, rows, args)
    tokens = sum(len(row["input_ids"]) for row in rows[WARM * args.rows_per_step :])
    name = args.kind + (" liger" if args.liger else "") + (", no checkpointing" if args.no_checkpointing else "")
    peak = torch.cuda.max_memory_reserved() / 1e9
    result = {"contender": name, "tokens_per_s": tokens / sum(spans[WARM:]), "peak_gpu_gb": peak, "losses": losses}
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
