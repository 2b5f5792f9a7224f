"""The engine with the rounding of a tuned loop: peft's layers, and adapters in the base's number format.

peft rounds the frozen product and adds the adapter's part to that. The engine itself adds the two in float32, rounds
once and holds adapters in float32, which is nearer to float32 (bench/log.md). With this in its place, the
half-precision losses of a loop built on peft have to come out: whatever else were wrong would show.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from unittest.mock import patch

import torch
from torch import nn

from fledge.ops.lora_linear import Linear, Lora, reference_linear
from fledge.ops.wide_linear import wide_linears

ROOMS = ("fledge.engine.block", "fledge.engine.cross")


def linear_as_peft(
    x: torch.Tensor, layer: Linear, *, out: torch.Tensor, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """y [N,O] of x [N,I] into `out`, with `residual` [N,O] added where given: each sum rounded."""
    held = layer if layer.lora is None else replace(layer, lora=in_format(layer.lora, x.dtype))
    with wide_linears(x.dtype, x.device.type):
        out.copy_(reference_linear(x, held))
    return out if residual is None else out.add_(residual)


def linears_as_peft(
    x: torch.Tensor, layers: Sequence[Linear], *, outs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Each for itself."""
    return tuple(linear_as_peft(x, layer, out=out) for layer, out in zip(layers, outs, strict=True))


def in_format(lora: Lora, dtype: torch.dtype) -> Lora:
    """The adapter with A and B as the tuned loop holds them."""
    a, b = (nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in (lora.a, lora.b))
    return replace(lora, a=a, b=b)


def hold_in_format(model: nn.Module, dtype: torch.dtype) -> None:
    """After an optimiser's step: adapters as they are where they are held in `dtype`."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.to(dtype))


@contextlib.contextmanager
def rounding_as_peft() -> Iterator[None]:
    """Within this block the engine's linears round as peft's do."""
    with contextlib.ExitStack() as stack:
        for room in ROOMS:
            stack.enter_context(patch(f"{room}.linear", linear_as_peft))
            stack.enter_context(patch(f"{room}.linears", linears_as_peft))
        yield
