"""A frozen linear with its adapter: y = x W^T + b + s (x A^T) B^T, and the gradients of x, A and B alone.

Shapes: N positions, I inputs, O outputs, r rank. A and B are float32 masters; the products run in x's number format.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fledge.ops.held import Weight, dequantized, scale_of, whole
from fledge.ops.product import mm


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

    weight: Weight
    """[O,I]: a tensor of any strides, or one that is held otherwise and made whole for each product"""
    bias: torch.Tensor | None
    lora: Lora | None


def linear(x: torch.Tensor, layer: Linear, *, out: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    """y [N,O] into `out`, with `residual` [N,O] added where given.

    In half precision the order matters. The adapter's part is far smaller than the rest: added to a rounded sum it
    would mostly vanish, so it is written first and the frozen product is added to it in the product's float32
    accumulator. For the same reason the residual rides on the product only where there is no adapter. Where outputs
    have a scale it comes after the sum, so the adapter's part is divided by it before.
    """
    weight, scale = whole(layer.weight).t(), scale_of(layer.weight)
    if layer.lora is not None:
        reduced, b = _reduced(x, layer.lora), _scaled_b(layer.lora, x.dtype, over=scale)
        mm(x, weight, out=out, add=mm(reduced, b.t(), out=out))
    elif scale is not None:
        mm(x, weight, out=out)
    elif residual is not None:
        mm(x, weight, out=out, add=residual)
    elif layer.bias is not None:
        return mm(x, weight, out=out, add=layer.bias)
    else:
        return mm(x, weight, out=out)
    if scale is not None:
        out.mul_(scale)
    if layer.bias is not None:
        out.add_(layer.bias)
    if residual is not None and (layer.lora is not None or scale is not None):
        out.add_(residual)
    return out


def linear_gradients(
    given: Sequence[torch.Tensor], layers: Sequence[Linear], *, x: torch.Tensor | None, dx: torch.Tensor | None
) -> list[torch.Tensor]:
    """dA [r,I] and dB [O,r] in float32 of every adapter, for linears of one input x [N,I] and their dy [N,O].

    dx [N,I] is the sum over all of them; None where nothing below needs it. x is needed for adapters alone.
    dB = s dY^T (x A^T); dA = (s dY B)^T x; dx = dY W + (s dY B) A, the adapters' parts first, as in `linear`.
    """
    gradients: list[torch.Tensor] = []
    is_fresh = True
    for dy, layer in zip(given, layers, strict=True):
        if layer.lora is None:
            continue
        assert x is not None
        reduced = _product(dy, _scaled_b(layer.lora, dy.dtype))
        gradients += _adapter_gradients(dy, reduced, x, layer.lora)
        if dx is not None:
            _add_adapter_part(dx, reduced, layer.lora, is_fresh=is_fresh)
            is_fresh = False
    if dx is not None:
        for dy, layer in zip(given, layers, strict=True):
            scale = scale_of(layer.weight)
            scaled = dy if scale is None else (dy * scale).to(dy.dtype)
            mm(scaled, whole(layer.weight), out=dx, add=None if is_fresh else dx)
            is_fresh = False
    return gradients


def _adapter_gradients(dy: torch.Tensor, reduced: torch.Tensor, x: torch.Tensor, lora: Lora) -> list[torch.Tensor]:
    """dA and dB; `reduced` is s dY B [N,r]."""
    seen = _dropped(x, lora)
    db = _product(dy.t(), _product(seen, lora.a.detach().to(x.dtype).t())).float().mul_(lora.scale)
    return [_product(reduced.t(), seen).float(), db]


def _add_adapter_part(dx: torch.Tensor, reduced: torch.Tensor, lora: Lora, *, is_fresh: bool) -> None:
    """dx gets the adapter's part, or more of it where another's is there already."""
    a = lora.a.detach().to(reduced.dtype)
    if lora.drop is not None:
        part = lora.drop(_product(reduced, a))
        dx.copy_(part) if is_fresh else dx.add_(part)
    else:
        mm(reduced, a, out=dx, add=None if is_fresh else dx)


def _reduced(x: torch.Tensor, lora: Lora) -> torch.Tensor:
    """x A^T [N,r]."""
    return _product(_dropped(x, lora), lora.a.detach().to(x.dtype).t())


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a b in memory of its own: thin products, of an adapter's rank."""
    return mm(a, b, out=a.new_empty(a.shape[0], b.shape[1]))


def _dropped(x: torch.Tensor, lora: Lora) -> torch.Tensor:
    return x if lora.drop is None else lora.drop(x)


def _scaled_b(lora: Lora, dtype: torch.dtype, *, over: torch.Tensor | None = None) -> torch.Tensor:
    """s B [O,r], each row divided by `over` [O] where given: folded into the float32 master before it is rounded."""
    scaled = lora.b.detach() * lora.scale
    return (scaled if over is None else scaled.div_(over[:, None])).to(dtype)


def reference_linear(x: torch.Tensor, layer: Linear) -> torch.Tensor:
    """The same, as plain differentiable torch."""
    weight = layer.weight if isinstance(layer.weight, torch.Tensor) else dequantized(layer.weight)
    y = nn.functional.linear(x, weight, layer.bias)
    if layer.lora is None:
        return y
    lora = layer.lora
    return y + (_dropped(x, lora).to(lora.a.dtype) @ lora.a.t() @ lora.b.t() * lora.scale).to(y.dtype)
