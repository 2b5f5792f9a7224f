"""The one judge of every model: validation loss and greedy answers by plain transformers and peft.

    python bench/quality_judge.py --base DIR --task NAME --rows FILE --out FILE [--adapter DIR]

bench/quality.py starts it. Prompts are the chat template's with the generation prompt, padded on the left, in batches
of JUDGE_ROWS sorted by length; an answer stops at the template's end token. The validation loss is the sum of token
losses over what training would train of a row. Logits are taken to float32 before the loss. Nothing of Fledge is
imported.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.quality_peft import padded
from bench.quality_rows import Encoded, encode, read_rows
from bench.quality_scores import record_scores, text_scores
from bench.quality_settings import ALONE, JUDGE_ROWS, LOSS_ROWS, TASKS, TRAINING

SCORES = {"alpaca": text_scores, "records": record_scores}


def by_length(lengths: list[int], size: int) -> Iterator[list[int]]:
    """Batches of row numbers, rows of like length together, longest first."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def losses(model: Any, rows: list[Encoded]) -> list[float]:
    """The sum of each row's token losses over its trained tokens."""
    found = [0.0] * len(rows)
    for batch in by_length([len(row.ids) for row in rows], LOSS_ROWS):
        given = padded([rows[number] for number in batch])
        labels = given.pop("labels")[:, 1:]
        logits = model(**given).logits[:, :-1]
        is_trained = labels != -100
        token_losses = torch.zeros(labels.shape)
        token_losses[is_trained] = F.cross_entropy(logits[is_trained].float(), labels[is_trained], reduction="none")
        for number, total in zip(batch, token_losses.double().sum(1).tolist(), strict=True):
            found[number] = total
    return found


def answers(model: Any, rows: list[Encoded], *, tokenizer: Any, max_new_tokens: int) -> list[tuple[str, bool]]:
    """Each row's greedy answer, and whether it was cut because it did not end in time."""
    found: list[tuple[str, bool]] = [("", False)] * len(rows)
    end = tokenizer.eos_token_id
    for batch in by_length([row.prompt for row in rows], JUDGE_ROWS):
        prompts = [rows[number].ids[: rows[number].prompt] for number in batch]
        width = max(map(len, prompts))
        ids = torch.tensor([[end] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=end,
            pad_token_id=end,
        )
        for number, new in zip(batch, out[:, width:].tolist(), strict=True):
            is_cut = end not in new
            kept = new if is_cut else new[: new.index(end)]
            found[number] = (tokenizer.decode(kept, skip_special_tokens=True), is_cut)
        print(f"{sum(bool(text) for text, _ in found)} answers", flush=True)
    return found


def judge(base: Path, adapter: Path | None, *, rows: list[dict], task: str) -> dict:
    """Everything about one model on the held-out rows."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, TRAINING.dtype), **ALONE)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    encoded = [encode(tokenizer, row["messages"]) for row in rows]
    references = [row["messages"][-1]["content"] for row in rows]
    with torch.inference_mode():
        start = time.perf_counter()
        lost = losses(model, encoded)
        between = time.perf_counter()
        given = answers(model, encoded, tokenizer=tokenizer, max_new_tokens=TASKS[task].max_new_tokens)
    judged = [
        {"tokens": row.stop - row.prompt, "loss": loss, "answer": answer, "is_cut": is_cut}
        | SCORES[task](answer, reference)
        for row, loss, (answer, is_cut), reference in zip(encoded, lost, given, references, strict=True)
    ]
    return {
        "rows": judged,
        "loss_seconds": between - start,
        "answer_seconds": time.perf_counter() - between,
    }


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--base", "--rows", "--out"):
        ap.add_argument(name, type=Path, required=True)
    ap.add_argument("--task", choices=list(TASKS), required=True)
    ap.add_argument("--adapter", type=Path)
    args = ap.parse_args()
    result = judge(args.base, args.adapter, rows=read_rows(args.rows), task=args.task)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    written = args.out.with_suffix(".part")  # renamed when whole: a judging that was cut short is run again
    written.write_text(json.dumps(result), encoding="utf-8")
    written.rename(args.out)


if __name__ == "__main__":
    main()
