"""Where a base's weights lie: with the device that computes, or, where it has no room, in host memory, to stream in."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fledge.models.blocks import blocks
from fledge.models.quantize import LINEARS
from fledge.ops.frozen_linear import FrozenLinear
from fledge.ops.held import HeldValues, Scratch

ALL_SHARE, SOME_SHARE = 0.9, 0.7
"""Of a device's free memory: what the weights may take if all of them fit, and if not, so that activations do."""


def place(model: PreTrainedModel, device: torch.device, *, room: float) -> int:
    """Move the model to `device`, except for the linears of blocks beyond `room` bytes; returns how many those are.

    They stay in host memory and are copied over for each product, so a model larger than the card trains, slowly. The
    last blocks stream: all others' weights are there when a pass begins.
    """
    linears = [m for block in blocks(model) for m in block.modules() if type(m) in (*LINEARS, FrozenLinear)]
    sizes = {id(module): _bytes(module) for module in linears}
    total = sum(p.numel() * p.element_size() for p in [*model.parameters(), *model.buffers()])
    left = room * SOME_SHARE - (total - sum(sizes.values()))
    scratch, staying = Scratch(device), set()
    for module in linears:
        left -= sizes[id(module)]
        if total > room * ALL_SHARE and left < 0:
            staying.add(id(module))
    for name, module in list(model.named_modules()):
        if id(module) in staying:
            model.set_submodule(name, _elsewhere(module, device))
    for module in model.modules():
        if isinstance(module, FrozenLinear):
            module.scratch = scratch
        if not (isinstance(module, FrozenLinear) and module.is_streamed):
            _move(module, device)
    return len(staying)


def keep_whole(model: PreTrainedModel, *, room: float) -> tuple[int, int]:
    """Keep the weights of quantised layers as they are multiplied, as many as `room` bytes hold: the same bits without
    the work. Returns how many are kept, of how many.
    """
    frozen = [module for module in model.modules() if isinstance(module, FrozenLinear) and not module.is_streamed]
    for number, module in enumerate(frozen):
        room -= module.out_features * module.in_features * module.dtype.itemsize
        if room < 0:
            return number, len(frozen)
        held = module.held
        module.kept = HeldValues(held.whole().clone(), held.scale)
    return len(frozen), len(frozen)


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _elsewhere(module: nn.Module, device: torch.device) -> FrozenLinear:
    """A layer that streams: its weight in host memory that the device copies from directly."""
    if isinstance(module, FrozenLinear):
        streamed = module
    else:
        weight = module.weight.detach()
        weight = weight.t().contiguous() if isinstance(module, Conv1D) else weight
        streamed = FrozenLinear("elsewhere", tuple(weight.shape), bias=module.bias, dtype=weight.dtype)
        streamed.register_parameter("codes", nn.Parameter(weight, requires_grad=False))
    streamed.is_streamed = True
    for name, parameter in streamed.named_parameters():
        if name in ("bias", "scale"):  # what is put on outputs lies where they do
            parameter.data = parameter.data.to(device)
        elif device.type == "cuda":
            parameter.data = parameter.data.pin_memory()
    return streamed


def _move(module: nn.Module, device: torch.device) -> None:
    """What the module itself has, not its children."""
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(device)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else buffer.to(device)
