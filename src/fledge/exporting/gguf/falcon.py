"""Falcon in GGUF, as llama.cpp has it: rotary, attention beside the MLP, no biases."""

import gguf
import torch

from fledge.exporting.gguf.family import (
    Config,
    Family,
    activation_refusal,
    consecutive,
    describe_decoder,
    first_refusal,
    rope_refusal,
    rope_theta,
)

LENGTH = 2048
"""What the published models were trained on, where the configuration does not say it."""

_EPSILON = 1e-5
"""What transformers' reader takes for granted."""


def _kv_heads(config: Config) -> int:
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.ffn_hidden_size, kv_heads=_kv_heads(config))
    writer.add_tensor_data_layout("jploski")  # llama.cpp's name for queries, keys and values behind one another
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _refusal(config: Config) -> str | None:
    return first_refusal(
        "ALiBi" if config.alibi else None,
        "biases" if config.bias else None,
        "attention before the MLP instead of beside it"
        if not (config.parallel_attn or config.new_decoder_architecture)
        else None,
        activation_refusal(config.activation, ("gelu", "gelu_new", "gelu_pytorch_tanh")),
        rope_refusal(config),
    )


def _layout(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    if "query_key_value" not in name:
        return tensor
    return consecutive(tensor, groups=_kv_heads(config), width=config.hidden_size // config.num_attention_heads)


def _is_7b(config: Config) -> bool:
    """The one form that transformers' reader has: it undoes no layout and reads no widths or counts."""
    has_usual_numbers = config.ffn_hidden_size == 4 * config.hidden_size and config.layer_norm_epsilon == _EPSILON
    return bool(has_usual_numbers and config.multi_query and not config.new_decoder_architecture)


FALCON = Family(
    arch=gguf.MODEL_ARCH.FALCON,
    describe=_describe,
    refusal=_refusal,
    layout=_layout,
    longest=lambda config: int(getattr(config, "max_position_embeddings", None) or LENGTH),
    is_read_by_transformers=_is_7b,
)
