"""Rotary positions in place, in one pass of C++ (rows.cpp; arXiv 2104.09864).

Shapes: T positions, K groups of G heads, D features of a head, R rotated ones.
"""

import ctypes

import torch

from fledge.ops.native.build import library
from fledge.ops.native.calls import address, format_of, sizes


def rotate(x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], *, back: bool) -> None:
    """Rotate x [T,K,G,D] or [T,K,D] in place by cos and sin [T,R]; `back` is the transpose."""
    cos, sin = turns
    whole = x if x.dim() == 4 else x[:, :, None]
    assert whole.stride(3) == cos.stride(1) == sin.stride(1) == 1
    library().rotary(
        address(x), address(cos), address(sin), sizes(*whole.shape[:3], cos.shape[1] // 2),
        sizes(*whole.stride()[:3], cos.stride(0), sin.stride(0)), ctypes.c_float(-1.0 if back else 1.0), *format_of(x),
    )  # fmt: skip
