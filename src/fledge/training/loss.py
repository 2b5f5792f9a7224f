"""The loss of a causal model on one batch, and the rows to blame where it is not finite."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from fledge.data.rows import Batch
from fledge.ops.cross_entropy import sum_cross_entropy
from fledge.training.step import LossOf


@dataclass(frozen=True, slots=True)
class CausalLoss:
    """Sum of token losses; the head is computed on supervised positions only."""

    announce: Callable[[Batch], None]
    """Told of each batch before it is computed: attention and dropout need to know its rows."""
    needs_positions: bool
    """Whether the model's forward takes position_ids."""
    needs_mask: bool
    """Whether attention must be told where padding is; not where it keeps documents apart, for rows are padded on the
    right only and causality hides what comes after."""

    def __call__(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self.announce(batch)
        supervised = torch.zeros_like(batch.input_ids, dtype=torch.bool)
        supervised.view(-1)[batch.sources] = True
        inputs = {"input_ids": batch.input_ids, "logits_to_keep": supervised, "use_cache": False}
        if self.needs_positions:
            inputs["position_ids"] = batch.position_ids
        if self.needs_mask and batch.attention_mask is not None:
            inputs["attention_mask"] = batch.attention_mask
        return sum_cross_entropy(model(**inputs).logits, batch.targets)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    mask = batch.attention_mask
    return replace(
        batch,
        input_ids=batch.input_ids.to(device, non_blocking=True),
        sources=batch.sources.to(device, non_blocking=True),
        targets=batch.targets.to(device, non_blocking=True),
        position_ids=batch.position_ids.to(device, non_blocking=True),
        attention_mask=None if mask is None else mask.to(device, non_blocking=True),
    )


def find_guilty(
    model: torch.nn.Module,
    batches: Sequence[Batch],
    *,
    loss_of: LossOf,
    single: Callable[[int], Batch],
    where: Callable[[int], str],
) -> list[str]:
    """Where the rows lie whose own loss or own gradient is not finite."""
    guilty = []
    trained = [p for p in model.parameters() if p.requires_grad]
    for row in (row for batch in batches for row in batch.rows):
        loss = loss_of(model, single(row))
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        values = [loss, *(g for g in gradients if g is not None)]
        if not all(bool(torch.isfinite(value).all()) for value in values):
            guilty.append(where(row))
    return guilty
