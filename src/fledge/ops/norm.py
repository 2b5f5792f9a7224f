"""Frozen layer and RMS normalisation: nothing is saved but the input, and the input's gradient is computed from it.

Shapes: N positions, H features.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from fledge.ops.buffers import Buffers
from fledge.ops.choice import fused


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """y = weight * normalised(x) + bias. layer: (x - mean) / sqrt(var + eps); rms: x / sqrt(mean(x^2) + eps).

    RMS: arXiv 1910.07467. `weight` [H] is what the normalised input is multiplied with, 1 + w for Gemma's; both are
    float32, so that y is rounded once.
    """

    kind: Literal["layer", "rms"]
    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float


def normalise(x: torch.Tensor, norm: Norm, *, out: torch.Tensor, buffers: Buffers) -> torch.Tensor:
    """x [N,H] normalised into `out` [N,H], in float32 within and rounded once."""
    if (kernels := fused("norm", x)) is not None:
        normalised: torch.Tensor = kernels.normalise(x, norm, out=out)
        return normalised
    if norm.kind == "layer":
        mean, scale = (buffers.take(f"norm.{name}", x.shape[0], 1, dtype=torch.float32) for name in ("mean", "scale"))
        forward = torch.ops.aten.native_layer_norm.out
        forward(x, [x.shape[1]], norm.weight, norm.bias, norm.eps, out0=out, out1=mean, out2=scale)
        return out
    normal, _ = _normal(x, norm, buffers)
    return out.copy_(normal.mul_(norm.weight))


def add_norm_gradient(
    dx: torch.Tensor, dy: torch.Tensor, *, x: torch.Tensor, norm: Norm, buffers: Buffers
) -> torch.Tensor:
    """dx += the gradient of normalise(x) for dy; all [N,H]. Returns dx. Nothing of [N,H] is allocated.

    dx = r * (g - xhat * mean(g * xhat)) with g = weight * dy, r = 1 / sqrt(mean(x^2) + eps), xhat = r * x for rms;
    for a layer norm x is taken less its mean, and g too.
    """
    if (kernels := fused("norm", x)) is not None:
        added: torch.Tensor = kernels.add_norm_gradient(dx, dy, x=x, norm=norm)
        return added
    normal, scale = _normal(x, norm, buffers)
    given = _widened(dy, "norm.dy", buffers).mul_(norm.weight)
    product = torch.mul(given, normal, out=buffers.take_rows("norm.sum", *x.shape, dtype=torch.float32))
    along = product.sum(1, keepdim=True).div_(x.shape[1])
    if norm.kind == "layer":
        given.sub_(given.mean(1, keepdim=True))
    given.addcmul_(normal, along, value=-1.0).mul_(scale)
    return dx.copy_(product.copy_(dx).add_(given))


def _normal(x: torch.Tensor, norm: Norm, buffers: Buffers) -> tuple[torch.Tensor, torch.Tensor]:
    """xhat [N,H] and r [N,1], float32."""
    wide = _widened(x, "norm.x", buffers)
    if norm.kind == "layer":
        wide.sub_(wide.mean(1, keepdim=True))
    square = torch.linalg.vector_norm(wide, dim=1, keepdim=True).square_()
    scale = square.div_(x.shape[1]).add_(norm.eps).rsqrt_()
    return wide.mul_(scale), scale


def _widened(x: torch.Tensor, name: str, buffers: Buffers) -> torch.Tensor:
    """x [N,H] in float32, in a buffer."""
    return buffers.take_rows(name, *x.shape, dtype=torch.float32).copy_(x)


def reference_norm(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The same, as plain differentiable torch."""
    wide = x.float()
    if norm.kind == "layer":
        normal = torch.nn.functional.layer_norm(wide, [x.shape[-1]], eps=norm.eps)
    else:
        normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)
    return (normal * norm.weight + (0.0 if norm.bias is None else norm.bias)).to(x.dtype)
