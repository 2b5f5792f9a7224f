"""Finds the transformer blocks of a model."""

from typing import Any

from torch import nn


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks in order: the longest list of modules that the model keeps, in each of its two parts where
    it is an encoder-decoder. What reads images has blocks of its own, and they are not among them.
    """
    return [block for stack in stacks(model) for block in stack]


def stacks(model: nn.Module) -> list[list[nn.Module]]:
    """The same, those of the encoder and those of the decoder apart; of a model of one part there is one stack."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        whole: Any = model
        return [_longest_list(whole.get_encoder()), _longest_list(whole.get_decoder())]
    return [_longest_list(language_model(model))]


def language_model(model: nn.Module) -> nn.Module:
    """The module that reads ids, where a model is made of that one and of others; else the model itself."""
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config") or getattr(config, "is_encoder_decoder", False):
        return model
    whole: Any = model
    found: nn.Module = model if config.get_text_config() is config else whole.get_decoder()
    return found


def _longest_list(model: nn.Module) -> list[nn.Module]:
    """The longest list that lies in no other: a block may keep its own parts, or its experts, in one."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    return max((list(model.get_submodule(name).children()) for name in outer), key=len, default=[])
