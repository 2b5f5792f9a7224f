"""Phi-1, Phi-1.5 and Phi-2 in GGUF: part of each head is rotated, attention stands beside the MLP."""

import gguf

from fledge.exporting.gguf.family import (
    Config,
    Family,
    activation_refusal,
    describe_decoder,
    first_refusal,
    rope_refusal,
    rope_theta,
    rotary_width,
)


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.intermediate_size, kv_heads=config.num_key_value_heads)
    writer.add_rope_dimension_count(rotary_width(config))
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_eps(config.layer_norm_eps)


def _refusal(config: Config) -> str | None:
    return first_refusal(
        rope_refusal(config, is_partial=True),
        activation_refusal(config.hidden_act, ("gelu_new", "gelu_pytorch_tanh")),
        "norms of queries and keys" if config.qk_layernorm else None,
    )


PHI2 = Family(arch=gguf.MODEL_ARCH.PHI2, describe=_describe, refusal=_refusal, writes_tied_head=True)
