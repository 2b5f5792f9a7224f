"""StarCoder2 in GGUF: norms and matrices have biases, and there is no gate."""

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
    until_window,
    width_refusal,
)


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.intermediate_size, kv_heads=config.num_key_value_heads)
    writer.add_rope_dimension_count(rotary_width(config))
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_eps(config.norm_epsilon)


def _refusal(config: Config) -> str | None:
    return first_refusal(
        rope_refusal(config),
        activation_refusal(config.hidden_act, ("gelu_pytorch_tanh", "gelu_new")),
        width_refusal(config),
        None if config.use_bias else "matrices without biases",
    )


STARCODER2 = Family(arch=gguf.MODEL_ARCH.STARCODER2, describe=_describe, refusal=_refusal, longest=until_window)
