"""Weights in 8 bits, a scale for each row: an integer times its row's scale.

Shapes: O outputs, I inputs of a linear.
"""

from dataclasses import dataclass

import torch

from fledge.errors import ModelError

LARGEST = 127
"""Of the integers: symmetric, so that zero is exact."""
DEAD = 1e-20
"""A row whose largest weight is below this is held as zeros: B divided by its scale would leave float32."""
CHUNK = 1 << 18
"""Values that are worked on at once, so that what is made of them stays in a CPU's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Int8:
    """A quantised weight."""

    codes: torch.Tensor
    """[O,I] int8"""
    scale: torch.Tensor
    """[O] float32: a weight is its code times its row's scale"""


def quantize_int8(weight: torch.Tensor) -> Int8:
    """The nearest integers of weight [O,I] to its row's largest value / 127, ties to even.

    What LLM.int8() (arXiv 2208.07339) holds of a weight, without its rounding of activations. Raises ModelError where
    a weight is not finite.
    """
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
    rows = max(1, CHUNK // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        codes[part], scale[part] = _quantized(weight[part].float())
    if not bool(torch.isfinite(scale).all()):
        raise ModelError("the base holds weights that are not finite", cure="fetch it again, or use another")
    return Int8(codes, scale)


def _quantized(wide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    largest = torch.linalg.vector_norm(wide, ord=torch.inf, dim=1)
    scale = torch.where(largest < DEAD, 1.0, largest / LARGEST)
    return (wide / scale[:, None]).round_().clamp_(-LARGEST, LARGEST).to(torch.int8), scale


def dequantize_int8(quantized: Int8) -> torch.Tensor:
    """The weight [O,I] in float32."""
    return quantized.codes.float().mul_(quantized.scale[:, None])
