"""A row of logits to its loss, and in its own memory to its gradient, in C++ (rows.cpp).

Shapes: C positions, V vocabulary.
"""

import ctypes

import torch

from fledge.ops.native.build import library
from fledge.ops.native.calls import address, format_of, size


def softmax_in_place(
    logits: torch.Tensor, labels: torch.Tensor, *, softcap: float | None, gain: float, is_last: bool
) -> torch.Tensor:
    """The loss of these logits [C,V], float64; they become their own gradient unless `is_last`."""
    assert gain == 1.0, "float16 is computed without this kernel"
    places = labels.contiguous()
    assert not len(places) or (places.min() >= 0 and places.max() < logits.shape[1]), "a label without a logit"
    losses = torch.empty(logits.shape[0], dtype=torch.float64)
    library().cross_entropy(
        address(logits), address(places), address(losses), *map(size, logits.shape),
        size(logits.stride(0)), ctypes.c_float(softcap or 0.0), is_last, *format_of(logits),
    )  # fmt: skip
    return losses.sum()
