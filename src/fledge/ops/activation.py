"""Activations of a feed-forward layer, into a buffer, and their gradients; only the input is saved.

Shapes: N positions, F features.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fledge.ops.choice import fused

Forward = Callable[[torch.Tensor, torch.Tensor], object]
Backward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], object]


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """`forward(x, out)` and `backward(dy, x, out)`, where out may be dy; `reference(x)` is differentiable."""

    name: str
    forward: Forward
    backward: Backward
    reference: Callable[[torch.Tensor], torch.Tensor]


BLOCK = 262_144
"""Values computed at once, so that their float32 copies stay in cache."""
_SLOPE = 2.0 * math.sqrt(2.0 / math.pi)


def _tanh_gelu(x: torch.Tensor, out: torch.Tensor) -> None:
    """The tanh form as x * sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), which is the same: tanh is slow on a CPU.

    Computed in float32 and rounded once, block by block.
    """
    for part, into in zip(x.view(-1).split(BLOCK), out.view(-1).split(BLOCK), strict=True):
        wide = part.to(torch.float32, copy=True)
        gate = torch.mul(wide, wide).mul_(_SLOPE * 0.044715).add_(_SLOPE).mul_(wide).sigmoid_()
        into.copy_(gate.mul_(wide))


def _gelu(kind: str) -> Activation:
    """Gaussian error linear units, arXiv 1606.08415; tanh is its own approximation there."""

    def forward(x: torch.Tensor, out: torch.Tensor) -> None:
        if kind == "tanh" and x.device.type == "cpu":
            _tanh_gelu(x, out)
        else:
            torch.ops.aten.gelu.out(x, approximate=kind, out=out)

    return Activation(
        f"gelu_{kind}",
        forward,
        lambda dy, x, out: torch.ops.aten.gelu_backward.grad_input(dy, x, approximate=kind, grad_input=out),
        lambda x: F.gelu(x, approximate=kind),
    )


_SILU = Activation(
    "silu",
    lambda x, out: torch.ops.aten.silu.out(x, out=out),
    lambda dy, x, out: torch.ops.aten.silu_backward.grad_input(dy, x, grad_input=out),
    F.silu,
)
_RELU = Activation(
    "relu",
    lambda x, out: torch.clamp_min(x, 0, out=out),
    lambda dy, x, out: torch.ops.aten.threshold_backward.grad_input(dy, x, 0, grad_input=out),
    F.relu,
)
ACTIVATIONS = (_gelu("tanh"), _gelu("none"), _SILU, _RELU)


def activate(activation: Activation, x: torch.Tensor, *, up: torch.Tensor | None, out: torch.Tensor) -> torch.Tensor:
    """activation(x), times `up` where given, into `out`; all [N,F]."""
    if (kernels := fused("activation", x)) is not None:
        activated: torch.Tensor = kernels.activate(x, up=up, kind=activation.name, out=out)
        return activated
    activation.forward(x, out)
    return out if up is None else out.mul_(up)


def activation_gradient(
    activation: Activation, given: torch.Tensor, *, x: torch.Tensor, up: torch.Tensor | None, dup: torch.Tensor | None
) -> None:
    """`given` [N,F], the gradient of what `activate` gave, becomes that of x; that of `up` is written into `dup`."""
    if (kernels := fused("activation", x)) is not None:
        kernels.activation_gradient(given, x, up=up, kind=activation.name, dx=given, dup=dup)
        return
    if up is not None and dup is not None:
        activation.forward(x, dup)
        dup.mul_(given)
        given.mul_(up)
    activation.backward(given, x, given)


def find_activation(function: Callable[[torch.Tensor], torch.Tensor]) -> Activation | None:
    """The activation that `function` computes, found by its values; None where it is none of them."""
    x = torch.linspace(-20, 20, 1601)
    wanted = function(x)
    return next((a for a in ACTIVATIONS if torch.allclose(a.reference(x), wanted, rtol=1e-6, atol=2e-6)), None)
