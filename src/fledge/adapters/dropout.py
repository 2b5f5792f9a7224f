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
    encoder_lengths: tuple[int, ...] = ()
    """The same of what an encoder reads."""


class KeyedDropout(nn.Module):
    """Drops each feature with probability p and scales the rest by 1 / (1 - p), in training mode only.

    The law: a row's mask is the same whatever micro-batch, rank or packing it is computed in, and the same again
    when activation checkpointing computes it twice. Costs one generator per row and module.
    """

    def __init__(self, p: float, *, name: str, keys: DropoutKeys) -> None:
        super().__init__()
        self.p, self.name, self.keys = p, name, keys
        self.is_of_encoder = False
        """Whether its positions are the encoder's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return x
        return x * self._mask(x)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _mask(self, x: torch.Tensor) -> torch.Tensor:
        """[B,T,D], or [B*T,D] as x is, of 0 and 1 / (1 - p); padding keeps zeros, which no loss sees.

        Raises ModelError where x is of some of the positions only, as in a mixture of experts: which, is not known.
        """
        keys = self.keys
        lengths = keys.encoder_lengths if self.is_of_encoder else keys.lengths
        mask = torch.zeros(x.shape, dtype=x.dtype, device=x.device).view(-1, x.shape[-1])
        num_rows = 1 if keys.is_packed else max(1, len(keys.rows))
        width = mask.shape[0] // num_rows
        needed = sum(lengths) if keys.is_packed else max(lengths, default=0)
        if width * num_rows != mask.shape[0] or width < needed:
            cure = "set lora.lora_dropout: 0, or leave this module out of lora.target_modules"
            raise ModelError(
                "dropout cannot be keyed by row here", where=f"lora.target_modules: {self.name}", cure=cure
            )
        start = 0
        for index, (row, length) in enumerate(zip(keys.rows, lengths, strict=True)):
            first = start if keys.is_packed else index * width
            mask[first : first + length] = self._kept(row, length, x.shape[-1], device=x.device)
            start += length
        return mask.view(x.shape)

    def _kept(self, row: int, length: int, features: int, *, device: torch.device) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(derive_seed(self.keys.seed, self.keys.step, row, self.name))
        draw = torch.rand(length, features, generator=generator, device=device)
        return (draw >= self.p) / (1.0 - self.p)


ENCODED, DECODED = 3, 5
"""Tokens of the pass that asks an encoder-decoder which of its modules see which side."""


def find_sides(model: nn.Module) -> None:
    """Ask an encoder-decoder which of its dropouts are given the encoder's positions, by one pass over a few tokens.
    The model is in eval mode after it.
    """
    dropouts = [module for module in model.modules() if isinstance(module, KeyedDropout)]
    if not dropouts:
        return

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        module.is_of_encoder = inputs[0].shape[-2] == ENCODED

    hooks = [module.register_forward_pre_hook(note) for module in dropouts]
    model.eval()
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            read, written = (torch.zeros(1, count, dtype=torch.int64, device=device) for count in (ENCODED, DECODED))
            model(input_ids=read, decoder_input_ids=written, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
