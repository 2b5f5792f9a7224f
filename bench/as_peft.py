"""The engine with the rounding of peft's layers: the frozen product is rounded, and the adapter's part added to that.

The engine itself adds the two in float32 and rounds once, which is nearer to float32 (bench/log.md). With this in its
place, the half-precision losses of a loop built on peft have to come out: whatever else were wrong would show.
"""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import torch

from fledge.ops.held import dequantized
from fledge.ops.lora_linear import Linear
from fledge.ops.product import mm

PLACES = ("fledge.engine.block.linear", "fledge.engine.cross.linear")


def linear_as_peft(
    x: torch.Tensor, layer: Linear, *, out: torch.Tensor, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """y [N,O] of x [N,I] into `out`, with `residual` [N,O] added where given: each sum rounded."""
    weight = layer.weight if isinstance(layer.weight, torch.Tensor) else dequantized(layer.weight)
    mm(x, weight.t(), out=out, add=layer.bias)
    if layer.lora is not None:
        a, b = (p.detach().to(x.dtype) for p in (layer.lora.a, layer.lora.b))
        seen = x if layer.lora.drop is None else layer.lora.drop(x)
        out.add_(seen @ a.t() @ b.t() * layer.lora.scale)
    return out if residual is None else out.add_(residual)


@contextlib.contextmanager
def rounding_as_peft() -> Iterator[None]:
    """Within this block the engine's linears round as peft's do."""
    with contextlib.ExitStack() as stack:
        for place in PLACES:
            stack.enter_context(patch(place, linear_as_peft))
        yield
