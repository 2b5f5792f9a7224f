"""A module as the engine's linear: frozen, with a plain LoRA on it or without."""

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from fledge.adapters.dropout import KeyedDropout
from fledge.ops.frozen_linear import FrozenLinear
from fledge.ops.held import Weight
from fledge.ops.lora_linear import Linear, Lora


def as_linear(module: nn.Module) -> Linear | None:
    """The linear that `module` is, without its adapter while adapters are off.

    None where it is something else or holds what the engine does not do: a trained weight, one that another library
    has quantised, several adapters, a variant of LoRA, dropout that is not keyed by row.
    """
    base = module.get_base_layer() if isinstance(module, LoraLayer) else module
    if (
        not isinstance(base, nn.Linear | Conv1D)
        or any(p.requires_grad for p in base.parameters())
        or not (isinstance(base, FrozenLinear) or base.weight.is_floating_point())
    ):
        return None
    weight = _weight(base)
    if base is module or module.disable_adapters:
        return Linear(weight, _detached(base.bias), None)
    lora = _lora(module)
    return None if lora is None else Linear(weight, _detached(base.bias), lora)


def _weight(base: nn.Linear | Conv1D) -> Weight:
    if isinstance(base, FrozenLinear):
        return base.held
    return (base.weight.t() if isinstance(base, Conv1D) else base.weight).detach()


def _detached(bias: torch.Tensor | None) -> torch.Tensor | None:
    return None if bias is None else bias.detach()


def _lora(layer: LoraLayer) -> Lora | None:
    if len(layer.active_adapters) != 1 or layer.merged:
        return None
    name = layer.active_adapters[0]
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias.get(name):
        return None
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    dropout = layer.lora_dropout[name]
    is_idle = isinstance(dropout, nn.Identity) or not dropout.training
    if not isinstance(dropout, KeyedDropout) and not is_idle:
        return None
    return Lora(a, b, layer.scaling[name], dropout if isinstance(dropout, KeyedDropout) else None)
