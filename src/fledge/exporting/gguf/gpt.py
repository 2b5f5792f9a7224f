"""GPT-2, with its transposed projections, and GPT-NeoX, whose heads hold queries, keys and values side by side."""

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
    rotary_width,
)

_CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
_POSITIONS_OF_READER = 1024
"""transformers' reader takes no number of positions from the file."""


def _describe_gpt2(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.n_inner or 4 * config.n_embd, kv_heads=config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _refusal_gpt2(config: Config) -> str | None:
    is_scaled_oddly = config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights
    return first_refusal(
        activation_refusal(config.activation_function, ("gelu_new", "gelu_pytorch_tanh")),
        "attention scaled in another way" if is_scaled_oddly else None,
        "attention to an encoder" if config.add_cross_attention else None,
    )


def _layout_gpt2(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    return tensor.T if name.endswith(_CONV1D) else tensor


def _is_usual_gpt2(config: Config) -> bool:
    return config.n_positions == _POSITIONS_OF_READER and config.n_inner in (None, 4 * config.n_embd)


def _describe_neox(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=config.intermediate_size, kv_heads=config.num_attention_heads)
    writer.add_rope_dimension_count(rotary_width(config))
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_parallel_residual(config.use_parallel_residual)
    writer.add_layer_norm_eps(config.layer_norm_eps)


def _refusal_neox(config: Config) -> str | None:
    return first_refusal(
        rope_refusal(config, is_partial=True),
        activation_refusal(config.hidden_act, ("gelu", "gelu_new", "gelu_pytorch_tanh")),
        None if config.attention_bias else "attention without biases",
    )


def _layout_neox(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    if "query_key_value" not in name:
        return tensor
    heads = config.num_attention_heads
    return consecutive(tensor, groups=heads, width=config.hidden_size // heads)


GPT2 = Family(
    arch=gguf.MODEL_ARCH.GPT2,
    describe=_describe_gpt2,
    refusal=_refusal_gpt2,
    layout=_layout_gpt2,
    longest=lambda config: int(config.n_positions),
    is_read_by_transformers=_is_usual_gpt2,
)
GPT_NEOX = Family(
    arch=gguf.MODEL_ARCH.GPTNEOX,
    describe=_describe_neox,
    refusal=_refusal_neox,
    layout=_layout_neox,
    writes_tied_head=True,
)
