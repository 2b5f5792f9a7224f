"""Dropout whose mask is a function of seed, step, row and module, so that batch shape does not change it.

Shapes: T positions of one document, D features.
"""

from dataclasses import dataclass

import torch
from torch import nn

from fledge.errors import ModelError
from fledge.runtime.random import derive_seed


@dataclass(slots=True)
class DropoutKeys:
    """What the masks of the batch under way depend on; one object, shared by all modules of one model."""

    seed: int = 0
    step: int = 0
    rows: tuple[int, ...] = ()
    """Index of each document of the batch in the token store."""
    lengths: tuple[int, ...] = ()
    """Tokens of each document."""
    is_packed: bool = False


class KeyedDropout(nn.Module):
    """Drops each feature with probability p and scales the rest by 1 / (1 - p), in training mode only.

    The law: a row's mask is the same whatever micro-batch, rank or packing it is computed in, and the same again
    when activation checkpointing computes it twice. Costs one generator per row and module.
    """

    def __init__(self, p: float, *, name: str, keys: DropoutKeys) -> None:
        super().__init__()
        self.p, self.name, self.keys = p, name, keys

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return x
        return x * self._mask(x)

    def _mask(self, x: torch.Tensor) -> torch.Tensor:
        """[B,T,D], or [B*T,D] as x is, of 0 and 1 / (1 - p); padding keeps zeros, which no loss sees.

        Raises ModelError where x is of some of the positions only, as in a mixture of experts: which, is not known.
        """
        keys = self.keys
        mask = torch.zeros(x.shape, dtype=x.dtype, device=x.device).view(-1, x.shape[-1])
        num_rows = 1 if keys.is_packed else max(1, len(keys.rows))
        width = mask.shape[0] // num_rows
        needed = sum(keys.lengths) if keys.is_packed else max(keys.lengths, default=0)
        if width * num_rows != mask.shape[0] or width < needed:
            cure = "set lora.lora_dropout: 0, or leave this module out of the targets"
            raise ModelError(
                "dropout cannot be keyed by row here", where=f"lora.target_modules: {self.name}", cure=cure
            )
        start = 0
        for index, (row, length) in enumerate(zip(keys.rows, keys.lengths, strict=True)):
            first = start if keys.is_packed else index * width
            mask[first : first + length] = self._kept(row, length, x.shape[-1], device=x.device)
            start += length
        return mask.view(x.shape)

    def _kept(self, row: int, length: int, features: int, *, device: torch.device) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(derive_seed(self.keys.seed, self.keys.step, row, self.name))
        draw = torch.rand(length, features, generator=generator, device=device)
        return (draw >= self.p) / (1.0 - self.p)
