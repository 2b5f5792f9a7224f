"""Layer and RMS normalisation and its gradient, a row at a time, in C++ (rows.cpp): nothing is kept.

Shapes: N positions, H features.
"""

import ctypes

import torch

from fledge.ops.native.build import library
from fledge.ops.native.calls import address, format_of, size, sizes
from fledge.ops.norm import Norm


def normalise(x: torch.Tensor, norm: Norm, *, out: torch.Tensor) -> torch.Tensor:
    """x [N,H] normalised into `out` [N,H]; a row's features lie beside each other."""
    assert x.stride(1) == out.stride(1) == 1
    library().norm_forward(
        address(x), address(out), address(norm.weight), address(norm.bias), *map(size, x.shape),
        size(x.stride(0)), size(out.stride(0)), *_kind(norm), *format_of(x),
    )  # fmt: skip
    return out


def add_norm_gradient(dx: torch.Tensor, dy: torch.Tensor, *, x: torch.Tensor, norm: Norm) -> torch.Tensor:
    """dx += the gradient of normalise(x) for dy; all [N,H], a row's features beside each other. Returns dx."""
    assert dx.stride(1) == dy.stride(1) == x.stride(1) == 1
    library().norm_backward(
        address(dx), address(dy), address(x), address(norm.weight), *map(size, x.shape),
        sizes(dx.stride(0), dy.stride(0), x.stride(0)), *_kind(norm), *format_of(x),
    )  # fmt: skip
    return dx


def _kind(norm: Norm) -> tuple[ctypes.c_float, int]:
    return ctypes.c_float(norm.eps), norm.kind == "layer"
