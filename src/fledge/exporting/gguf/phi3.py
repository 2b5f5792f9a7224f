"""Phi-3 and Phi-4 in GGUF: queries, keys and values are one matrix, and so are gate and up, as llama.cpp has them."""

import gguf

from fledge.exporting.gguf.family import (
    Config,
    Family,
    activation_refusal,
    describe_decoder,
    first_refusal,
    head_width,
    rope_refusal,
    rope_theta,
    rotary_width,
    until_window,
    width_refusal,
)

_EPSILON = 1e-5
"""What transformers' reader takes for granted."""


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.intermediate_size, kv_heads=config.num_key_value_heads)
    writer.add_rope_dimension_count(rotary_width(config))
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_sliding_window(0)  # some versions of llama.cpp put a window of their own where nothing is said


def _refusal(config: Config) -> str | None:
    return first_refusal(
        # llama.cpp chooses between the short and the long factors by the room it is given, the model by the text
        rope_refusal(config, is_partial=True),
        activation_refusal(config.hidden_act, ("silu",)),
        width_refusal(config),
    )


PHI3 = Family(
    arch=gguf.MODEL_ARCH.PHI3,
    describe=_describe,
    refusal=_refusal,
    longest=until_window,
    is_read_by_transformers=lambda config: (
        config.rms_norm_eps == _EPSILON and rotary_width(config) == head_width(config)
    ),
)
