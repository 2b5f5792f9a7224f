"""Reads the facts of a model off its modules."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fledge.facts import ModelFacts
from fledge.ops.frozen_linear import PARTS, FrozenLinear

LINEAR_TYPES = (nn.Linear, Conv1D)


def read_facts(model: PreTrainedModel) -> ModelFacts:
    """The facts of a loaded base, before any adapter is attached."""
    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings()
    config = model.config.get_text_config()
    names = [name for name, module in model.named_modules() if isinstance(module, LINEAR_TYPES) and module is not head]
    parameters = list(model.parameters())
    return ModelFacts(
        architecture=type(model).__name__,
        num_layers=len(blocks(model)),
        hidden_size=embedding.weight.shape[1],
        vocab_size=embedding.weight.shape[0],
        num_parameters=sum(p.numel() for p in parameters) + _unpacked(model),
        parameter_bytes=sum(p.numel() * p.element_size() for p in parameters),
        value_bytes=model.dtype.itemsize,
        is_head_tied=head is not None and head.weight is embedding.weight,
        max_positions=_max_positions(model, config),
        linear_names=tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names)),
        has_attention_interface=bool(getattr(model, "_supports_attention_backend", False)),
        supports_sdpa=bool(getattr(model, "_supports_sdpa", False)),
        is_encoder_decoder=bool(model.config.is_encoder_decoder),
        takes_positions="position_ids" in inspect.signature(model.forward).parameters,
        numbers=tuple(sorted(set(_numbers(model.config.to_dict())))),
    )


def _unpacked(model: PreTrainedModel) -> int:
    """How many parameters more there are than numbers that hold them."""
    frozen = [module for module in model.modules() if isinstance(module, FrozenLinear)]
    held = sum(getattr(module, part).numel() for module in frozen for part in PARTS[module.kind])
    return sum(module.in_features * module.out_features for module in frozen) - held


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks in order: the longest list of modules that the model keeps, in each of its two parts where
    it is an encoder-decoder.
    """
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        whole: Any = model
        return [*_longest_list(whole.get_encoder()), *_longest_list(whole.get_decoder())]
    return _longest_list(model)


def _longest_list(model: nn.Module) -> list[nn.Module]:
    """The longest list that lies in no other: a block may keep its own parts, or its experts, in one."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    return max((list(model.get_submodule(name).children()) for name in outer), key=len, default=[])


def _max_positions(model: PreTrainedModel, config: object) -> int | None:
    """A learned position table cannot be exceeded; rotary and ALiBi positions are computed for any length."""
    declared = getattr(config, "max_position_embeddings", None)
    sizes = {module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)}
    offsets = range(3)  # some tables keep a row or two before position 0
    return declared if declared is not None and any(declared + offset in sizes for offset in offsets) else None


def _numbers(value: object) -> Iterator[int]:
    """The whole numbers in a configuration, however deep."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
