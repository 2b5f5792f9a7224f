"""Reads the facts of a model off its modules."""

import inspect
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fledge.facts import ModelFacts
from fledge.models.blocks import blocks
from fledge.models.language import image_parts, text_config
from fledge.models.one_of_each import kinds_of_blocks, one_of_each, runs_with_one_of_each
from fledge.ops.frozen_linear import PARTS, FrozenLinear

_FEW = 4
_NEARLY = 0.01
LINEAR_TYPES = (nn.Linear, Conv1D)


def read_facts(model: PreTrainedModel) -> ModelFacts:
    """The facts of a loaded base, before any adapter is attached."""
    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings()
    config, aside = model.config.get_text_config(), image_parts(model)
    behind = tuple(f"{name}." for name in aside)
    linears = [
        name for name, module in model.named_modules() if isinstance(module, LINEAR_TYPES) and module is not head
    ]
    names = [name for name in linears if not name.startswith(behind)]
    parameters = list(model.parameters())
    return ModelFacts(
        architecture=type(model).__name__,
        num_layers=len(blocks(model)),
        hidden_size=embedding.weight.shape[1],
        vocab_size=embedding.weight.shape[0],
        num_parameters=num_weights(model),
        parameter_bytes=sum(p.numel() * p.element_size() for p in parameters),
        value_bytes=model.dtype.itemsize,
        is_head_tied=head is not None and head.weight is embedding.weight,
        max_positions=_max_positions(model, config),
        linear_names=tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names)),
        has_attention_interface=bool(getattr(model, "_supports_attention_backend", False)),
        supports_sdpa=bool(getattr(model, "_supports_sdpa", False)),
        is_encoder_decoder=bool(model.config.is_encoder_decoder),
        takes_positions=_takes_positions(model),
        numbers=tuple(sorted(set(_numbers(text_config(model).to_dict())))),
        image_parts=aside,
    )


def num_weights(model: nn.Module) -> int:
    """How many weights a model has, each of a quantised layer counted."""
    return sum(parameter.numel() for parameter in model.parameters()) + _unpacked(model)


def _takes_positions(model: PreTrainedModel) -> bool:
    """Whether forward takes position_ids, and counts them from 0: some tables begin behind their padding's row.

    An encoder-decoder has two sides, each with positions of its own: False.
    """
    named = "position_ids" in inspect.signature(model.forward).parameters and not model.config.is_encoder_decoder
    weight = model.get_input_embeddings().weight
    if not named or weight.device.type == "meta":
        return named
    padding = {getattr(module, "padding_idx", None) for module in model.modules() if isinstance(module, nn.Embedding)}
    tokens = [number for number in range(weight.shape[0]) if number not in padding][:_FEW]
    ids = torch.tensor([tokens], device=weight.device)
    positions = torch.arange(len(tokens), device=weight.device)[None]
    kinds = kinds_of_blocks(model)

    def logits(given: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = model(input_ids=ids, use_cache=False, **given).logits
        return found.float()

    if not runs_with_one_of_each(model, kinds, run=lambda: logits({})):
        kinds = list(range(len(kinds)))
    with torch.no_grad(), one_of_each(model, kinds):
        plain, counted = logits({}), logits({"position_ids": positions})
    return bool((plain - counted).norm() <= _NEARLY * plain.norm())


def _unpacked(model: nn.Module) -> int:
    """How many parameters more there are than numbers that hold them."""
    frozen = [module for module in model.modules() if isinstance(module, FrozenLinear)]
    held = sum(getattr(module, part).numel() for module in frozen for part in PARTS[module.kind])
    return sum(module.in_features * module.out_features for module in frozen) - held


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
