"""The library's own frozen linears on a CPU without half-precision instructions: the same values, in usable time."""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from fledge.ops.product import must_widen, over_rows


def wide_linears(dtype: torch.dtype, device_type: str) -> contextlib.AbstractContextManager[Any]:
    """Within this block linears whose weights are not trained take products by float32 tiles, forward and backward;
    nothing is changed where this number format has kernels of its own.

    A backward pass may come after the block, but not a forward pass that is computed again in it, as in checkpointing.
    """
    return _WideLinears() if must_widen(dtype, device_type) else contextlib.nullcontext()


class _WideLinears(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and _is_meant(*args):
            return _Linear.apply(*args)
        return func(*args, **(kwargs or {}))


def _is_meant(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    is_trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    return x.dtype == weight.dtype and must_widen(x.dtype, x.device.type) and not is_trained


class _Linear(torch.autograd.Function):
    """x W^T + b for x [..,I], frozen W [O,I] and b [O]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        ctx.weight = weight
        return over_rows(x, weight.t(), add=bias)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return over_rows(given[0], ctx.weight), None, None
