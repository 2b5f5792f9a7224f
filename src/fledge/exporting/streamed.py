"""Computes with a large merged model block by block: memory holds one block's weights at a time."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from fledge.config.model import Dtype
from fledge.exporting.large import is_large
from fledge.exporting.merged import Merged
from fledge.models.blocks import blocks
from fledge.models.outline import Outline, filled
from fledge.models.tensors import Held
from fledge.runtime.precision import TORCH_DTYPES


def is_streamed(outline: Outline, *, device: torch.device) -> bool:
    """Whether a merged model is to be computed block by block: a large one, on a CPU, whose tensors can be made one
    at a time. Not those that the library makes of several in the files, nor those of a base that comes quantised.
    """
    weights = sum(parameter.numel() for parameter in outline.model.parameters())
    is_held = any(isinstance(stored, Held) for stored in outline.stored.values())
    is_possible = not outline.rest and not is_held
    return is_possible and is_large(weights, device.type)


@contextlib.contextmanager
def streamed(merged: Merged, dtype: Dtype) -> Iterator[Any]:
    """The merged model in eval mode, whose blocks have weights only while they compute."""
    outline = merged.outline
    names = {name: _names_in(outline.model, block) for name, block in _named_blocks(outline.model)}
    inside = {name for each in names.values() for name in each}
    shapes = {name: tensor.shape for name, tensor in outline.model.state_dict().items()}

    def make(name: str) -> torch.Tensor:
        return _hollow(shapes[name], TORCH_DTYPES[dtype]) if name in inside else merged.tensor(name)

    model, hooks = filled(outline, make, dtype=dtype), []
    for name, block in _named_blocks(model):
        own = {each: model.get_parameter(each) for each in names[name]}
        fill = partial(_fill, merged, own, TORCH_DTYPES[dtype])
        hooks += [block.register_forward_pre_hook(fill), block.register_forward_hook(partial(_empty, own))]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def _named_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    chosen = {id(block) for block in blocks(model)}
    return [(name, module) for name, module in model.named_modules() if id(module) in chosen]


def _names_in(model: nn.Module, block: nn.Module) -> tuple[str, ...]:
    """Full names of a block's parameters that lie nowhere else in the model."""
    own = {id(parameter) for parameter in block.parameters()}
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in own:
            names.setdefault(id(parameter), []).append(name)
    return tuple(each[0] for each in names.values() if len(each) == 1)


def _hollow(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of this shape that takes no memory, as long as nobody asks for it in another number format."""
    return torch.zeros(1, dtype=dtype).expand(shape)


def _fill(merged: Merged, own: dict[str, nn.Parameter], dtype: torch.dtype, *_: Any) -> None:
    for name, parameter in own.items():
        parameter.data = merged.tensor(name).to(dtype)


def _empty(own: dict[str, nn.Parameter], *_: Any) -> None:
    for parameter in own.values():
        parameter.data = _hollow(parameter.shape, parameter.dtype)
