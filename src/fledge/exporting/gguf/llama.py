"""Llama, Mistral and Qwen2 in GGUF.

llama.cpp rotates neighbouring values of a head in the architecture `llama` and halves in `qwen2`; transformers rotates
halves in all of them, so that the rows of Llama's queries and keys change places.
"""

from functools import partial

import gguf
import torch

from fledge.exporting.gguf.family import (
    Config,
    Family,
    activation_refusal,
    describe_decoder,
    first_refusal,
    head_width,
    is_scaled,
    rope_refusal,
    rope_theta,
    until_window,
    width_refusal,
)
from fledge.exporting.gguf.rotary import describe_scaling, divisors


def describe_llama(writer: gguf.GGUFWriter, config: Config) -> None:
    """The numbers of a decoder with a gate, root mean square norms and rotary positions."""
    describe_decoder(writer, config, feed_forward=config.intermediate_size, kv_heads=config.num_key_value_heads)
    width = head_width(config)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(rope_theta(config))
    describe_scaling(writer, config.rope_parameters)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def refusal_of_llama(config: Config, *, scalings: tuple[str, ...] = ()) -> str | None:
    """What such a decoder may not have; `scalings` are the ways to scale rotary positions that are proven."""
    has_bias = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
    return first_refusal(
        rope_refusal(config, scalings=scalings),
        activation_refusal(config.hidden_act, ("silu",)),
        "biases in attention or MLP" if has_bias else None,
    )


def _neighbours(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    """The layout of graphs that rotate neighbours: the rows of a head's halves in turn."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if name.endswith(f"{part}.weight"):
            halves = tensor.reshape(count, 2, -1, tensor.shape[-1])
            return halves.transpose(1, 2).reshape(tensor.shape)
    return tensor


def _refusal_of_qwen2(config: Config) -> str | None:
    return first_refusal(refusal_of_llama(config, scalings=("yarn",)), width_refusal(config))


LLAMA = Family(
    arch=gguf.MODEL_ARCH.LLAMA,
    describe=describe_llama,
    refusal=partial(refusal_of_llama, scalings=("linear", "llama3", "yarn")),
    layout=_neighbours,
    extras=divisors,
    longest=until_window,
    is_read_by_transformers=lambda config: not is_scaled(config),
)
QWEN2 = Family(
    arch=gguf.MODEL_ARCH.QWEN2,
    describe=describe_llama,
    refusal=_refusal_of_qwen2,
    longest=until_window,
    is_read_by_transformers=lambda config: not is_scaled(config),
)
