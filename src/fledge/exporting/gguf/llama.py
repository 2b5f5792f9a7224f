"""Llama, Mistral and Qwen2 in GGUF.

llama.cpp rotates neighbouring values of a head in the architecture `llama` and halves in `qwen2`; transformers rotates
halves in all of them, so that the rows of Llama's queries and keys change places.
"""

import gguf
import torch

from fledge.exporting.gguf.family import (
    Config,
    Family,
    activation_refusal,
    always,
    describe_decoder,
    first_refusal,
    head_width,
    rope_refusal,
    rope_theta,
)


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.intermediate_size, kv_heads=config.num_key_value_heads)
    width = head_width(config)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _refusal(config: Config) -> str | None:
    has_bias = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
    return first_refusal(
        rope_refusal(config),
        activation_refusal(config.hidden_act, ("silu",)),
        "biases in attention or MLP" if has_bias else None,
    )


def _longest(config: Config) -> int:
    """llama.cpp has no sliding window for these architectures, so the file ends where the window begins to matter."""
    window = getattr(config, "sliding_window", None)
    return int(min(config.max_position_embeddings, window or config.max_position_embeddings))


def _layout(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if name.endswith(f"{part}.weight"):
            halves = tensor.reshape(count, 2, -1, tensor.shape[-1])
            return halves.transpose(1, 2).reshape(tensor.shape)
    return tensor


def _refusal_of_qwen2(config: Config) -> str | None:
    is_usual = head_width(config) * config.num_attention_heads == config.hidden_size
    return first_refusal(_refusal(config), None if is_usual else "heads that are not as wide as the model together")


LLAMA = Family(
    arch=gguf.MODEL_ARCH.LLAMA,
    describe=_describe,
    refusal=_refusal,
    layout=_layout,
    longest=_longest,
    is_read_by_transformers=always,
)
QWEN2 = Family(
    arch=gguf.MODEL_ARCH.QWEN2,
    describe=_describe,
    refusal=_refusal_of_qwen2,
    longest=_longest,
    is_read_by_transformers=always,
)
