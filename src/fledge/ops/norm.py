"""Frozen layer and RMS normalisation: nothing is saved but the input, and the input's gradient is computed from it.

Shapes: N positions, H features.
"""

from dataclasses import dataclass
from typing import Literal

import torch

ROWS = 512
"""Positions normalised at once, so that their float32 copy stays in cache."""


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


def normalise(x: torch.Tensor, norm: Norm, *, out: torch.Tensor) -> torch.Tensor:
    """x [N,H] normalised into `out` [N,H]."""
    for rows, into in zip(x.split(ROWS), out.split(ROWS), strict=True):
        wide = rows.float()
        if norm.kind == "layer":
            assert norm.bias is None or norm.bias.dtype == norm.weight.dtype
            into.copy_(torch.native_layer_norm(wide, [x.shape[-1]], norm.weight, norm.bias, norm.eps)[0])
        else:
            into.copy_(_scaled(wide, _reciprocal(wide, norm.eps)).mul_(norm.weight))
    return out


def add_norm_gradient(dx: torch.Tensor, dy: torch.Tensor, x: torch.Tensor, norm: Norm) -> torch.Tensor:
    """dx += the gradient of normalise(x) for dy; all [N,H]. Returns dx.

    rms: dx = r * (g - xhat * mean(g * xhat)) with g = weight * dy, r = 1 / sqrt(mean(x^2) + eps), xhat = r * x.
    """
    for into, grad, rows in zip(dx.split(ROWS), dy.split(ROWS), x.split(ROWS), strict=True):
        wide, given = rows.float(), grad.float()
        if norm.kind == "layer":
            shape, wanted = [x.shape[-1]], [True, False, False]
            _, mean, scale = torch.native_layer_norm(wide, shape, norm.weight, norm.bias, norm.eps)
            backward = torch.ops.aten.native_layer_norm_backward
            into.add_(backward(given, wide, shape, mean, scale, norm.weight, norm.bias, wanted)[0])
        else:
            scale = _reciprocal(wide, norm.eps)
            normal = _scaled(wide, scale)
            weighted = given * norm.weight
            along = torch.linalg.vecdot(weighted, normal)[:, None] / x.shape[-1]
            into.add_(weighted.addcmul_(normal, along, value=-1.0).mul_(scale))
    return dx


def _reciprocal(wide: torch.Tensor, eps: float) -> torch.Tensor:
    """[N,1] 1 / sqrt(mean(x^2) + eps)."""
    return torch.linalg.vecdot(wide, wide)[:, None].div_(wide.shape[-1]).add_(eps).rsqrt_()


def _scaled(wide: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return wide * scale


def reference_norm(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The same, as plain differentiable torch."""
    wide = x.float()
    if norm.kind == "layer":
        normal = torch.nn.functional.layer_norm(wide, [x.shape[-1]], eps=norm.eps)
    else:
        normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)
    return (normal * norm.weight + (0.0 if norm.bias is None else norm.bias)).to(x.dtype)
