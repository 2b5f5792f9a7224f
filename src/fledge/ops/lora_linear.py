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


def linear(
    x: torch.Tensor,
    layer: Linear,
    *,
    out: torch.Tensor,
    residual: torch.Tensor | None = None,
    reduced: torch.Tensor | None = None,
) -> torch.Tensor:
    """y [N,O] into `out`, with `residual` [N,O] added where given; `reduced` is x A^T [N,r] where it is there already.

    In half precision the order matters. The adapter's part is far smaller than the rest: added to a rounded sum it
    would mostly vanish, so it is written first and the frozen product is added to it in the product's float32
    accumulator. For the same reason the residual rides on the product only where there is no adapter. Where outputs
    have a scale it comes after the sum, so the adapter's part is divided by it before.
    """
    weight, scale = whole(layer.weight).t(), scale_of(layer.weight)
    if layer.lora is not None:
        b = _scaled_b(layer.lora, x.dtype, over=scale)
        reduced = _reduced(x, [layer.lora]) if reduced is None else reduced
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


def linears(x: torch.Tensor, layers: Sequence[Linear], *, outs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """`linear` of layers of one input; what their adapters take of it is one product."""
    parts: list[torch.Tensor] = []
    for group in _together([layer.lora for layer in layers if layer.lora is not None]):
        parts += _reduced(x, group).split([len(lora.a) for lora in group], dim=1)
    parts.reverse()
    return tuple(
        linear(x, layer, out=out, reduced=None if layer.lora is None else parts.pop())
        for layer, out in zip(layers, outs, strict=True)
    )


def linear_gradients(
    given: Sequence[torch.Tensor], layers: Sequence[Linear], *, x: torch.Tensor | None, dx: torch.Tensor | None
) -> list[torch.Tensor]:
    """dA [r,I] and dB [O,r] in float32 of every adapter, for linears of one input x [N,I] and their dy [N,O].

    dx [N,I] is the sum over all of them; None where nothing below needs it. x is needed for adapters alone.
    dB = s dY^T (x A^T); dA = (s dY B)^T x; dx = dY W + (s dY B) A, the adapters' parts first, as in `linear`.
    """
    gradients: list[torch.Tensor] = []
    of_adapted = [dy for dy, layer in zip(given, layers, strict=True) if layer.lora is not None]
    is_fresh = True
    for group in _together([layer.lora for layer in layers if layer.lora is not None]):
        assert x is not None
        dys, of_adapted = of_adapted[: len(group)], of_adapted[len(group) :]
        scaled = [_product(dy, _scaled_b(lora, dy.dtype)) for dy, lora in zip(dys, group, strict=True)]
        reduced = torch.cat(scaled, dim=1)
        gradients += _adapter_gradients(dys, reduced, x, group)
        if dx is not None:
            _add_adapter_part(dx, reduced, group, is_fresh=is_fresh)
            is_fresh = False
    if dx is not None:
        for dy, layer in zip(given, layers, strict=True):
            scale = scale_of(layer.weight)
            scaled_dy = dy if scale is None else (dy * scale).to(dy.dtype)
            mm(scaled_dy, whole(layer.weight), out=dx, add=None if is_fresh else dx)
            is_fresh = False
    return gradients


def _together(loras: list[Lora]) -> list[list[Lora]]:
    """Adapters of one input that see the same of it: all, or each alone where dropout gives each a mask of its own."""
    if any(lora.drop is not None for lora in loras):
        return [[lora] for lora in loras]
    return [loras] if loras else []


def _adapter_gradients(
    dys: Sequence[torch.Tensor], reduced: torch.Tensor, x: torch.Tensor, loras: Sequence[Lora]
) -> list[torch.Tensor]:
    """dA and dB of each; `reduced` is s dY B of all side by side [N,R]."""
    seen, ranks = _dropped(x, loras[0]), [len(lora.a) for lora in loras]
    das = _product(reduced.t(), seen).float().split(ranks)
    through = _product(seen, _stacked(loras, x.dtype).t()).split(ranks, dim=1)
    gradients: list[torch.Tensor] = []
    for dy, lora, da, part in zip(dys, loras, das, through, strict=True):
        gradients += [da, _product(dy.t(), part).float().mul_(lora.scale)]
    return gradients


def _add_adapter_part(dx: torch.Tensor, reduced: torch.Tensor, loras: Sequence[Lora], *, is_fresh: bool) -> None:
    """dx gets the adapters' part, or more of it where another's is there already."""
    a, drop = _stacked(loras, reduced.dtype), loras[0].drop
    if drop is not None:
        part = drop(_product(reduced, a))
        dx.copy_(part) if is_fresh else dx.add_(part)
    else:
        mm(reduced, a, out=dx, add=None if is_fresh else dx)


def _reduced(x: torch.Tensor, loras: Sequence[Lora]) -> torch.Tensor:
    """x A^T of all side by side [N,R]."""
    return _product(_dropped(x, loras[0]), _stacked(loras, x.dtype).t())


def _stacked(loras: Sequence[Lora], dtype: torch.dtype) -> torch.Tensor:
    """Their A under each other [R,I]."""
    parts = [lora.a.detach().to(dtype) for lora in loras]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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
