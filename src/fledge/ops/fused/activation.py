"""An activation with the gate it opens, and both gradients, in one pass.

Shapes: N positions, F features; all tensors are contiguous.
"""

import torch
import triton
import triton.language as tl

BLOCK = 2048


@triton.jit
def _activate(x, KIND: tl.constexpr):
    """The activation of x and its derivative, float32."""
    if KIND == "silu":
        gate = tl.sigmoid(x)
        y = x * gate
        slope = gate + y * (1.0 - gate)
    elif KIND == "gelu_tanh":
        # x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3); 1.5957.. is 2 sqrt(2 / pi)
        gate = tl.sigmoid(x * 1.5957691216057308 * (1.0 + 0.044715 * x * x))
        y = x * gate
        slope = gate + y * (1.0 - gate) * 1.5957691216057308 * (1.0 + 3 * 0.044715 * x * x)
    elif KIND == "gelu_none":
        gate = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
        y = x * gate
        slope = gate + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    else:
        y = tl.where(x <= 0.0, 0.0, x)  # what is no number stays none
        slope = tl.where(x > 0.0, 1.0, 0.0)
    return y, slope


@triton.jit
def _forward(x, up, out, count, KIND: tl.constexpr, GATED: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    is_there = at < count
    y, _ = _activate(tl.load(x + at, mask=is_there, other=0.0).to(tl.float32), KIND)
    if GATED:
        y *= tl.load(up + at, mask=is_there, other=0.0).to(tl.float32)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=is_there)


@triton.jit
def _backward(dy, x, up, dx, dup, count, KIND: tl.constexpr, GATED: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    is_there = at < count
    y, slope = _activate(tl.load(x + at, mask=is_there, other=0.0).to(tl.float32), KIND)
    given = tl.load(dy + at, mask=is_there, other=0.0).to(tl.float32)
    if GATED:
        opened = tl.load(up + at, mask=is_there, other=0.0).to(tl.float32)
        tl.store(dup + at, (given * y).to(dup.dtype.element_ty), mask=is_there)
        given *= opened
    tl.store(dx + at, (given * slope).to(dx.dtype.element_ty), mask=is_there)


def activate(x: torch.Tensor, *, up: torch.Tensor | None, kind: str, out: torch.Tensor) -> torch.Tensor:
    """activation(x), times `up` where given, into `out`; all [N,F]."""
    count = x.numel()
    _forward[triton.cdiv(count, BLOCK),](
        x, x if up is None else up, out, count, KIND=kind, GATED=up is not None, SIZE=BLOCK
    )
    return out


def activation_gradient(
    dy: torch.Tensor, x: torch.Tensor, *, up: torch.Tensor | None, kind: str, dx: torch.Tensor, dup: torch.Tensor | None
) -> None:
    """The gradients of x into `dx` and of `up` into `dup`, for dy; all [N,F]. Either may be dy's own memory."""
    count = x.numel()
    _backward[triton.cdiv(count, BLOCK),](
        dy, x, x if up is None else up, dx, dx if dup is None else dup, count,
        KIND=kind, GATED=up is not None, SIZE=BLOCK,
    )  # fmt: skip
