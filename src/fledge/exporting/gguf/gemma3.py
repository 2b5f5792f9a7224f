"""Gemma 3 in GGUF: five blocks with a window and a base of their own to each block without."""

from typing import Any

import gguf

from fledge.exporting.gguf.family import Config, Family, activation_refusal, describe_decoder, first_refusal
from fledge.exporting.gguf.gemma import GEMMA
from fledge.exporting.gguf.rotary import describe_scaling

_BLOCKS_OF_27B = 62
_PERIOD = 6
"""Every sixth block has no window."""
_LOCAL = {"rope_type": "default", "rope_theta": 10_000.0}
"""What llama.cpp rotates by in blocks with a window."""
_SCALAR = 256
"""What transformers' reader takes for granted."""


def _full(config: Config) -> dict[str, Any]:
    """The rotary positions of blocks without a window."""
    found: dict[str, Any] = config.rope_parameters["full_attention"]
    return found


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.intermediate_size, kv_heads=config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(_full(config)["rope_theta"])
    describe_scaling(writer, _full(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_sliding_window(config.sliding_window)


def _refusal(config: Config) -> str | None:
    blocks = config.num_hidden_layers
    windows = ["full_attention" if block % _PERIOD == 0 else "sliding_attention" for block in range(1, blocks + 1)]
    scale = config.hidden_size // config.num_attention_heads if blocks == _BLOCKS_OF_27B else config.head_dim
    kind = _full(config)["rope_type"]
    local = config.rope_parameters["sliding_attention"]
    return first_refusal(
        None if list(config.layer_types) == windows else "another order of windows",
        None if config.sliding_window else "no window",
        None if kind in ("default", "linear") else f"rotary positions scaled by {kind}",
        None if all(local[name] == value for name, value in _LOCAL.items()) else "another base where there is a window",
        None if config.query_pre_attn_scalar == scale else f"query_pre_attn_scalar of {config.query_pre_attn_scalar}",
        "soft caps" if config.final_logit_softcapping or config.attn_logit_softcapping else None,
        "attention to what follows" if config.use_bidirectional_attention else None,
        "biases in attention" if config.attention_bias else None,
        activation_refusal(config.hidden_activation, ("gelu_pytorch_tanh", "gelu_new")),
    )


GEMMA3 = Family(
    arch=gguf.MODEL_ARCH.GEMMA3,
    describe=_describe,
    refusal=_refusal,
    layout=GEMMA.layout,
    is_read_by_transformers=lambda config: (
        config.query_pre_attn_scalar == _SCALAR and _full(config)["rope_type"] == "default"
    ),
)
