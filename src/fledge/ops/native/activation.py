"""An activation with the gate it opens, and both gradients, in one pass of C++ (rows.cpp).

Shapes: N positions, F features; all tensors are contiguous.
"""

import torch

from fledge.ops.native.build import library
from fledge.ops.native.calls import address, format_of, size

KINDS = {"gelu_tanh": 0, "gelu_none": 1, "silu": 2, "relu": 3}


def activate(x: torch.Tensor, *, up: torch.Tensor | None, kind: str, out: torch.Tensor) -> torch.Tensor:
    """activation(x), times `up` where given, into `out`; all [N,F]."""
    library().activation_forward(address(x), address(up), address(out), size(x.numel()), KINDS[kind], *format_of(x))
    return out


def activation_gradient(
    dy: torch.Tensor, x: torch.Tensor, *, up: torch.Tensor | None, kind: str, dx: torch.Tensor, dup: torch.Tensor | None
) -> None:
    """The gradients of x into `dx` and of `up` into `dup`, for dy; all [N,F]. Either may be dy's own memory."""
    tensors = (address(each) for each in (dy, x, up, dx, dup))
    library().activation_backward(*tensors, size(x.numel()), KINDS[kind], *format_of(x))
