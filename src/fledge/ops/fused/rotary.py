"""Rotary positions in place, in one pass (arXiv 2104.09864).

Shapes: T positions, K groups of G heads, D features of a head, R rotated ones.
"""

import torch
import triton
import triton.language as tl

HEADS = 8
"""Heads of a program."""


@triton.jit
def _rotate(
    x, cos, sin, xt, xk, xg, cos_step, sin_step, K: tl.constexpr, G: tl.constexpr, HALF: tl.constexpr,
    WIDE: tl.constexpr, BACK: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    position = tl.program_id(0).to(tl.int64)
    head, at = tl.program_id(1) * SIZE + tl.arange(0, SIZE), tl.arange(0, WIDE)
    c = tl.load(cos + position * cos_step + at, mask=at < HALF, other=0.0)[None, :]
    s = tl.load(sin + position * sin_step + at, mask=at < HALF, other=0.0)[None, :]
    if BACK:
        s = -s
    is_there = (head < K * G)[:, None] & (at < HALF)[None, :]
    first = x + position * xt + (head // G * xk + head % G * xg)[:, None] + at[None, :]
    one = tl.load(first, mask=is_there, other=0.0).to(tl.float32)
    other = tl.load(first + HALF, mask=is_there, other=0.0).to(tl.float32)
    tl.store(first, (one * c - other * s).to(x.dtype.element_ty), mask=is_there)
    tl.store(first + HALF, (other * c + one * s).to(x.dtype.element_ty), mask=is_there)


def rotate(x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], *, back: bool) -> None:
    """Rotate x [T,K,G,D] or [T,K,D] in place by cos and sin [T,R]; `back` is the transpose."""
    cos, sin = turns
    whole = x if x.dim() == 4 else x[:, :, None]
    positions, kinds, group, _ = whole.shape
    half = cos.shape[1] // 2
    _rotate[positions, triton.cdiv(kinds * group, HEADS)](
        whole, cos, sin, *whole.stride()[:3], cos.stride(0), sin.stride(0), K=kinds, G=group, HALF=half,
        WIDE=triton.next_power_of_2(half), BACK=back, SIZE=HEADS, num_warps=4 if half > 32 else 2,
    )  # fmt: skip
