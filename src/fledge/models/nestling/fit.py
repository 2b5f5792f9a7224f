"""Trains nestling's weights from nothing: AdamW in float32, whole texts, batches of like length."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import BloomConfig, BloomForCausalLM

from fledge.models.nestling.dice import Dice

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the weights, beside the texts."""

    hidden_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    num_steps: int
    rows_per_step: int
    learning_rate: float
    seed: int


def new_model(shape: Shape) -> BloomForCausalLM:
    """A random BLOOM of this shape."""
    torch.manual_seed(shape.seed)
    config = BloomConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        initializer_range=0.04,
        use_cache=False,
        unk_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    model = BloomForCausalLM(config)
    for block in model.transformer.h:
        # The same function as BLOOM's own in one kernel instead of ten: a quarter less time for the whole step.
        block.mlp.gelu_impl = torch.nn.GELU(approximate="tanh")
    return model


def batches(rows: list[list[int]], shape: Shape) -> Iterator[list[list[int]]]:
    """One batch a step; rows of like length come together within a stretch of 64 batches, batches in random order."""
    dice = Dice(shape.seed)
    stretch = 64 * shape.rows_per_step
    for start in range(0, len(rows), stretch):
        near = sorted(rows[start : start + stretch], key=len)
        cut = [near[at : at + shape.rows_per_step] for at in range(0, len(near), shape.rows_per_step)]
        yield from dice.shuffled(cut)


def padded(batch: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, longest] ids and labels. No attention mask: pads stand on the right, where no real token looks."""
    longest = max(map(len, batch))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
    labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for row in batch])
    return ids, labels


def learning_rate_at(step: int, shape: Shape) -> float:
    """Linear warm-up over a twentieth of the steps, then linear decay to a fiftieth of the peak."""
    warm_up = max(1, shape.num_steps // 20)
    left = (shape.num_steps - step) / max(1, shape.num_steps - warm_up)
    return shape.learning_rate * min(step / warm_up, max(left, 0.02))


def fit(rows: list[list[int]], shape: Shape, *, tell: Callable[[int, float], None]) -> BloomForCausalLM:
    """Train on `rows` (token ids, num_steps * rows_per_step of them); `tell(step, loss)` after each step."""
    model = new_model(shape)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=shape.learning_rate, betas=(0.9, 0.98), fused=True)
    for step, batch in enumerate(batches(rows, shape), start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, shape)
        ids, labels = padded(batch)
        logits = model(input_ids=ids).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tell(step, loss.item())
    return model.eval()
