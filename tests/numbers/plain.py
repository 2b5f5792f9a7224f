"""The reference: a plain transformers + peft loop, with nothing of Fledge in its arithmetic."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

Rows = Sequence[tuple[list[int], list[bool]]]
"""Rows of one step: token ids, and which of them are trained."""


def padded(rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and labels [B, T], padded on the right."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor(
        [
            [i if kept else -100 for i, kept in zip(ids, trained, strict=True)] + [-100] * (width - len(ids))
            for ids, trained in rows
        ]
    )
    return ids, mask, labels


def plain_losses(
    base: Path, adapter: Path, steps: Sequence[Rows], *, learning_rate: float, micro: int, dtype: torch.dtype
) -> list[float]:
    """Loss of each step: mean over the step's supervised tokens. AdamW, constant rate, clipping at 1.0."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    model.config.use_cache = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    losses = []
    for rows in steps:
        supervised = sum(sum(trained[1:]) for _, trained in rows)
        total = 0.0
        for start in range(0, len(rows), micro):
            ids, mask, labels = padded(rows[start : start + micro])
            out = model(input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=supervised)
            out.loss.backward()
            total += out.loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses
