"""Layer and RMS normalisation and its gradient, a row at a time: the input is read once, nothing of it is kept.

Shapes: N positions, H features.
"""

import torch
import triton
import triton.language as tl

from fledge.ops.norm import Norm


@triton.jit
def _row(x, x_step, H: tl.constexpr, WIDE: tl.constexpr, eps, LAYER: tl.constexpr):
    """The features of this program's row, normalised in float32, and what they were divided by, inverted."""
    at = tl.arange(0, WIDE)
    is_there = at < H
    wide = tl.load(x + tl.program_id(0).to(tl.int64) * x_step + at, mask=is_there, other=0.0).to(tl.float32)
    if LAYER:
        wide = tl.where(is_there, wide - tl.sum(wide, 0) / H, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / H + eps)
    return wide * scale, scale, at, is_there


@triton.jit
def _forward(
    x, out, weight, bias, x_step, out_step, eps,
    H: tl.constexpr, WIDE: tl.constexpr, LAYER: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    normal, _, at, is_there = _row(x, x_step, H, WIDE, eps, LAYER)
    y = normal * tl.load(weight + at, mask=is_there, other=0.0)
    if BIASED:
        y += tl.load(bias + at, mask=is_there, other=0.0)
    tl.store(out + tl.program_id(0).to(tl.int64) * out_step + at, y.to(out.dtype.element_ty), mask=is_there)


@triton.jit
def _add_gradient(
    dx, dy, x, weight, dx_step, dy_step, x_step, eps, H: tl.constexpr, WIDE: tl.constexpr, LAYER: tl.constexpr
):
    normal, scale, at, is_there = _row(x, x_step, H, WIDE, eps, LAYER)
    row = tl.program_id(0).to(tl.int64)
    given = tl.load(dy + row * dy_step + at, mask=is_there, other=0.0).to(tl.float32)
    given *= tl.load(weight + at, mask=is_there, other=0.0)
    along = tl.sum(given * normal, 0) / H
    if LAYER:
        given -= tl.sum(given, 0) / H
    into = dx + row * dx_step + at
    before = tl.load(into, mask=is_there, other=0.0).to(tl.float32)
    tl.store(into, (before + (given - normal * along) * scale).to(dx.dtype.element_ty), mask=is_there)


def normalise(x: torch.Tensor, norm: Norm, *, out: torch.Tensor) -> torch.Tensor:
    """x [N,H] normalised into `out` [N,H]; a row's features lie beside each other."""
    assert x.stride(1) == out.stride(1) == 1
    bias = norm.weight if norm.bias is None else norm.bias
    _forward[x.shape[0],](
        x, out, norm.weight, bias, x.stride(0), out.stride(0), norm.eps,
        H=x.shape[1], WIDE=triton.next_power_of_2(x.shape[1]), LAYER=norm.kind == "layer",
        BIASED=norm.bias is not None, num_warps=_warps(x.shape[1]),
    )  # fmt: skip
    return out


def add_norm_gradient(dx: torch.Tensor, dy: torch.Tensor, *, x: torch.Tensor, norm: Norm) -> torch.Tensor:
    """dx += the gradient of normalise(x) for dy; all [N,H], a row's features beside each other. Returns dx."""
    assert dx.stride(1) == dy.stride(1) == x.stride(1) == 1
    _add_gradient[x.shape[0],](
        dx, dy, x, norm.weight, dx.stride(0), dy.stride(0), x.stride(0), norm.eps,
        H=x.shape[1], WIDE=triton.next_power_of_2(x.shape[1]), LAYER=norm.kind == "layer",
        num_warps=_warps(x.shape[1]),
    )  # fmt: skip
    return dx


def _warps(width: int) -> int:
    return 4 if width <= 2048 else 8 if width <= 8192 else 16
