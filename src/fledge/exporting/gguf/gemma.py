"""Gemma and Gemma 2 in GGUF: the model's norms multiply by one more than their weights, the file's by their weights."""

import gguf
import torch

from fledge.exporting.gguf.family import (
    Config,
    Family,
    activation_refusal,
    describe_decoder,
    first_refusal,
    rope_refusal,
    rope_theta,
)

_BLOCKS_OF_27B = 46
_SOFTCAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
"""What transformers' reader takes for granted."""


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.intermediate_size, kv_heads=config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _describe_second(writer: gguf.GGUFWriter, config: Config) -> None:
    _describe(writer, config)
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)


def _refusal(config: Config) -> str | None:
    return first_refusal(
        rope_refusal(config),
        activation_refusal(_activation(config), ("gelu_pytorch_tanh", "gelu_new")),
        "biases in attention" if config.attention_bias else None,
    )


def _activation(config: Config) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _refusal_second(config: Config) -> str | None:
    per_head = config.hidden_size // config.num_attention_heads
    scale = per_head if config.num_hidden_layers == _BLOCKS_OF_27B else config.head_dim
    windows = ["sliding_attention", "full_attention"] * config.num_hidden_layers
    return first_refusal(
        _refusal(config),
        None if config.query_pre_attn_scalar == scale else f"query_pre_attn_scalar of {config.query_pre_attn_scalar}",
        None if config.attn_logit_softcapping and config.final_logit_softcapping else "no soft caps",
        None if list(config.layer_types) == windows[: config.num_hidden_layers] else "another order of windows",
    )


def _one_more(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    """The layout of a model whose norms multiply by one more than their weights."""
    return tensor + 1 if name.endswith("norm.weight") else tensor


GEMMA = Family(arch=gguf.MODEL_ARCH.GEMMA, describe=_describe, refusal=_refusal, layout=_one_more, has_own_head=False)
GEMMA2 = Family(
    arch=gguf.MODEL_ARCH.GEMMA2,
    describe=_describe_second,
    refusal=_refusal_second,
    layout=_one_more,
    has_own_head=False,
    is_read_by_transformers=lambda config: (
        all(getattr(config, name) == value for name, value in _SOFTCAPS.items()) and config.query_pre_attn_scalar == 256
    ),
)
