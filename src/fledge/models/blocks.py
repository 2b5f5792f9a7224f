"""Finds the transformer blocks of a model."""

from typing import Any

from torch import nn


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
