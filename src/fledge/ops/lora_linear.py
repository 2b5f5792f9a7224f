"""A frozen linear with its adapter: y = x W^T + b + s (x A^T) B^T, and the gradients of x, A and B alone.

Shapes: N positions, I inputs, O outputs, r rank. A and B are float32 masters; the products run in x's number format.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """An adapter (arXiv 2106.09685)."""

    a: nn.Parameter
    """[r,I] float32"""
    b: nn.Parameter
    """[O,r] float32"""
    scale: float
    drop: Callable[[torch.Tensor], torch.Tensor] | None = None
    """[N,I] times dropout's mask of 0 and 1 / (1 - p), the same for a gradient; None without dropout."""


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A frozen linear, with an adapter or without."""

    weight: torch.Tensor
    """[O,I], of any strides"""
    bias: torch.Tensor | None
    lora: Lora | None


def linear(x: torch.Tensor, layer: Linear, *, out: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    """y [N,O] into `out`, with `residual` [N,O] added where given: it rides on the product, in its accumulator."""
    weight = layer.weight.t()
    if residual is not None:
        torch.addmm(residual, x, weight, out=out)
        if layer.bias is not None:
            out.add_(layer.bias)
    elif layer.bias is not None:
        torch.addmm(layer.bias, x, weight, out=out)
    else:
        torch.mm(x, weight, out=out)
    if layer.lora is not None:
        out.addmm_(_reduced(x, layer.lora), _scaled_b(layer.lora, x.dtype).t())
    return out


def linear_gradient(
    dy: torch.Tensor, layer: Linear, *, x: torch.Tensor | None, dx: torch.Tensor | None, add: bool = False
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """dA [r,I] and dB [O,r] in float32, where there is an adapter, for dy [N,O]; x [N,I] is needed for them alone.

    dx [N,I] is written, or added to; None where nothing below needs it. dB = s dY^T (x A^T); dA = (s dY B)^T x;
    dx = dY W + (s dY B) A.
    """
    if dx is not None:
        if add:
            dx.addmm_(dy, layer.weight)
        else:
            torch.mm(dy, layer.weight, out=dx)
    lora = layer.lora
    if lora is None:
        return None
    assert x is not None
    seen = _dropped(x, lora)
    db = torch.mm(dy.t(), seen @ lora.a.to(x.dtype).t()).float().mul_(lora.scale)
    reduced = dy @ _scaled_b(lora, dy.dtype)
    if dx is not None:
        if lora.drop is None:
            dx.addmm_(reduced, lora.a.to(dy.dtype))
        else:
            dx.add_(lora.drop(reduced @ lora.a.to(dy.dtype)))
    return torch.mm(reduced.t(), seen).float(), db


def _reduced(x: torch.Tensor, lora: Lora) -> torch.Tensor:
    """x A^T [N,r]."""
    return torch.mm(_dropped(x, lora), lora.a.to(x.dtype).t())


def _dropped(x: torch.Tensor, lora: Lora) -> torch.Tensor:
    return x if lora.drop is None else lora.drop(x)


def _scaled_b(lora: Lora, dtype: torch.dtype) -> torch.Tensor:
    """s B [O,r]: the scale is folded into the float32 master before it is rounded."""
    return (lora.b.detach() * lora.scale).to(dtype)


def reference_linear(x: torch.Tensor, layer: Linear) -> torch.Tensor:
    """The same, as plain differentiable torch."""
    y = nn.functional.linear(x, layer.weight, layer.bias)
    if layer.lora is None:
        return y
    lora = layer.lora
    return y + (_dropped(x, lora).to(lora.a.dtype) @ lora.a.t() @ lora.b.t() * lora.scale).to(y.dtype)
