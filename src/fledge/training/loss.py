"""The loss of a model on one batch by the library's modules, and the rows to blame where it is not finite."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch

from fledge.data.rows import Batch, EncoderSide
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
        return sum_cross_entropy(self.logits(model, batch), batch.targets)

    def logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """[M,V] of the positions that something is predicted from."""
        self.announce(batch)
        supervised = torch.zeros_like(batch.input_ids, dtype=torch.bool)
        supervised.view(-1)[batch.sources] = True
        inputs = {"input_ids": batch.input_ids, "logits_to_keep": supervised, "use_cache": False}
        if self.needs_positions:
            inputs["position_ids"] = batch.position_ids
        if self.needs_mask and batch.attention_mask is not None:
            inputs["attention_mask"] = batch.attention_mask
        logits: torch.Tensor = model(**inputs).logits
        return logits if logits.dim() == 2 else logits.flatten(0, 1)[batch.sources]  # some models give all


@dataclass(frozen=True, slots=True)
class PairLoss:
    """Sum of token losses of an encoder-decoder, on padded rows."""

    announce: Callable[[Batch], None]
    """Told of each batch before it is computed: dropout needs to know its rows."""

    def __call__(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return sum_cross_entropy(self.logits(model, batch), batch.targets)

    def logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """[M,V] of the positions that something is predicted from."""
        assert batch.encoder is not None and not batch.is_packed
        self.announce(batch)
        logits: torch.Tensor = model(
            input_ids=batch.encoder.input_ids,
            attention_mask=batch.encoder.attention_mask,
            decoder_input_ids=batch.input_ids,
            use_cache=False,
        ).logits
        return logits.flatten(0, 1)[batch.sources]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    side = batch.encoder
    encoder = None if side is None else replace(side, **_moved(side, device))
    return replace(batch, encoder=encoder, **_moved(batch, device))


def _moved(found: Batch | EncoderSide, device: torch.device) -> dict[str, torch.Tensor]:
    """Its tensors by name, on `device`. From page-locked memory, for a copy to a GPU from any other waits for it."""
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    if device.type == "cuda":
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


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
