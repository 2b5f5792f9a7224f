"""A frozen linear layer whose weight is held otherwise than it is multiplied; peft puts adapters on it as on any other.

Shapes: N positions, O outputs, I inputs.
"""

from typing import Any

import torch
from torch import nn

from fledge.ops.held import Held, HeldInt8, HeldNf4, HeldValues, Scratch, dequantized
from fledge.ops.int8 import Int8
from fledge.ops.nf4 import BLOCK, SCALES_BLOCK, Nf4
from fledge.ops.product import must_widen, over_rows

PARTS: dict[str, tuple[str, ...]] = {
    "int8": ("codes", "scale"),
    "nf4": ("codes", "scale_codes", "scale_sizes", "scale_mean"),
    "elsewhere": ("codes",),
}
"""The tensors of each way of holding a weight; of one that lies elsewhere the codes are its values."""


class FrozenLinear(nn.Linear):
    """x W^T + b. Its tensors are plain parameters, so that they move, save and load as any others do.

    It is an nn.Linear without `weight`: what asks for the type finds it, what would use the weight finds none.
    """

    def __init__(self, kind: str, shape: tuple[int, int], *, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.kind, self.dtype = kind, dtype
        self.out_features, self.in_features = shape
        self.register_parameter("weight", None)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
        self.scratch: Scratch | None = None
        """Memory to be whole in, which the layers of a model share."""
        self.is_turned = False
        """Whether the layer that stood here held its weight as [I,O], as GPT-2's do."""
        self.is_streamed = False
        """Whether its tensors stay in host memory and are copied to where they are multiplied."""
        self.kept: HeldValues | None = None
        """The weight as it is multiplied, where memory was given for it."""

    @property
    def held(self) -> Held:
        """The weight as a value, whose tensors are this module's."""
        if self.kept is not None:
            return self.kept
        assert self.scratch is not None, "a model's frozen layers are given their scratch when it is loaded"
        if self.kind == "int8":
            return HeldInt8(Int8(self.codes, self.scale), self.dtype, self.scratch)
        if self.kind == "nf4":
            held = Nf4(self.codes, self.scale_codes, self.scale_sizes, self.scale_mean)
            return HeldNf4(held, (self.out_features, self.in_features), self.dtype, self.scratch)
        return HeldValues(self.codes, scratch=self.scratch)

    @property
    def W_q(self) -> torch.Tensor:  # noqa: N802
        """By this name peft knows a layer that it may ask to `dequantize`, as DoRA does. It must not find a `qweight`:
        T5 would ask that for its number format and round what it feeds it.
        """
        codes: torch.Tensor = self.codes
        return codes

    def dequantize(self) -> torch.Tensor:
        """[O,I] the weight that the layer computes with, in the base's number format."""
        return dequantized(self.held)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _Product.apply(x, self.held)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.kind}"


def tensors_of(kind: str, shape: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and number format of the tensors that hold a weight [O,I] in fewer bits."""
    count = shape[0] * shape[1]
    if kind == "int8":
        return {"codes": (shape, torch.int8), "scale": (shape[:1], torch.float32)}
    blocks = -(-count // BLOCK)
    return {
        "codes": ((-(-count // 2),), torch.uint8),
        "scale_codes": ((blocks,), torch.uint8),
        "scale_sizes": ((-(-blocks // SCALES_BLOCK),), torch.float32),
        "scale_mean": ((1,), torch.float32),
    }


class _Product(torch.autograd.Function):
    """x W^T, and dx alone: nothing but the weight's own tensors is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, held: Held) -> torch.Tensor:
        ctx.held = held
        y = over_rows(x, held.whole().t()) if _must_widen(x, held) else nn.functional.linear(x, held.whole())
        return y if held.scale is None else y.mul_(held.scale)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        held: Held = ctx.held
        dy = given[0] if held.scale is None else (given[0] * held.scale).to(given[0].dtype)
        return over_rows(dy, held.whole()) if _must_widen(dy, held) else dy @ held.whole(), None


def _must_widen(x: torch.Tensor, held: Held) -> bool:
    return x.dtype == held.dtype and must_widen(x.dtype, x.device.type)
