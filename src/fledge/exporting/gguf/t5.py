"""T5 and FLAN-T5 in GGUF: two stacks, relative positions, and a head that carries the scale llama.cpp leaves away."""

import gguf
import torch

from fledge.exporting.gguf.family import Config, Family, first_refusal

LENGTH = 512
"""What T5 was trained on, where the configuration does not say it; relative positions have no end."""
_FARTHEST = 128
"""Where llama.cpp's buckets of relative positions end."""
_ACTIVATIONS = {True: ("gelu_new",), False: ("relu",)}
"""llama.cpp's, with a gate and without."""


def _longest(config: Config) -> int:
    return int(getattr(config, "n_positions", None) or LENGTH)


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_block_count(config.num_layers)
    writer.add_decoder_block_count(config.num_decoder_layers)
    writer.add_head_count(config.num_heads)
    writer.add_key_length(config.d_kv)
    writer.add_value_length(config.d_kv)
    # llama.cpp reads the one, transformers the other
    writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_relative_attn_buckets_count(config.relative_attention_num_buckets)
    writer.add_decoder_start_token_id(_start(config))


def _start(config: Config) -> int:
    return int(config.pad_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id)


def _refusal(config: Config) -> str | None:
    distance, gated = config.relative_attention_max_distance, bool(config.is_gated_act)
    is_known = config.dense_act_fn in _ACTIVATIONS[gated]
    return first_refusal(
        # llama.cpp counts heads for the encoder's blocks alone, and does not load more
        "more blocks in the decoder than in the encoder" if config.num_decoder_layers > config.num_layers else None,
        None if distance == _FARTHEST else f"relative positions up to {distance}",
        None if is_known else f"the activation {config.dense_act_fn}{' with a gate' if gated else ''}",
    )


def _layout(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    is_head = name == "lm_head.weight"
    return tensor * config.d_model**-0.5 if is_head and config.scale_decoder_outputs else tensor


T5 = Family(
    arch=gguf.MODEL_ARCH.T5,
    describe=_describe,
    refusal=_refusal,
    layout=_layout,
    longest=_longest,
    # with a head in the file both readers leave the scale away, which is in it
    writes_tied_head=True,
)
