"""BLOOM in GGUF: ALiBi, and queries, keys and values of a head side by side in the model, apart in the file."""

import gguf
import torch

from fledge.exporting.gguf.family import Config, Family, always, consecutive, describe_decoder

LENGTH = 2048
"""What the published models were trained on; their configurations do not say it."""


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_decoder(writer, config, feed_forward=4 * config.hidden_size, kv_heads=config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _refusal(config: Config) -> str | None:
    return "residuals after the norm" if config.apply_residual_connection_post_layernorm else None


def _layout(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    if "query_key_value" not in name:
        return tensor
    return consecutive(tensor, groups=config.n_head, width=config.hidden_size // config.n_head)


BLOOM = Family(
    arch=gguf.MODEL_ARCH.BLOOM,
    describe=_describe,
    refusal=_refusal,
    layout=_layout,
    longest=lambda config: int(getattr(config, "seq_length", None) or LENGTH),
    is_read_by_transformers=always,
)
