"""Modules that are trained whole: float32 inside a base of another number format."""

from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper
from torch import nn


def bridge_float32(model: nn.Module, *, dtype: torch.dtype) -> None:
    """Let each wholly trained module take and give the base's `dtype` while it computes in float32.

    Without this a float32 head meets bfloat16 hidden states and torch refuses the product.
    """
    if dtype == torch.float32:
        return
    for wrapper in model.modules():
        if isinstance(wrapper, ModulesToSaveWrapper):
            for module in wrapper.modules_to_save.values():
                module.register_forward_pre_hook(_widen)
                module.register_forward_hook(lambda _, __, output: _as(output, dtype=dtype))


def _widen(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_as(value, dtype=torch.float32) for value in inputs)


def _as(value: Any, *, dtype: torch.dtype) -> Any:
    """`value` in `dtype` where it is a tensor of floating point numbers."""
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
