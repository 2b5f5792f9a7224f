"""Falcon: rotary or ALiBi, one key/value head, as many as queries or groups of them, side by side or in sequence."""

from functools import cache, partial
from typing import Any

import torch
from transformers.models.falcon.modeling_falcon import build_alibi_tensor

from fledge.engine.parts import Attention, Block, Split
from fledge.models.bodies.position_bias import PositionBias
from fledge.models.bodies.reading import AsLinear, consecutive, grouped, interleaved, read_linear, read_mlp, read_norm
from fledge.ops.plan import Shape


def read_block(block: Any, as_linear: AsLinear) -> Block:
    """A FalconDecoderLayer."""
    attention, mlp, config = block.self_attention, block.mlp, block.config
    kv_heads = _kv_heads(attention)
    groups, width, scale = attention.num_heads // kv_heads, attention.head_dim, attention.inv_norm_factor
    has_two_norms = hasattr(block, "ln_attn")
    after = None if config.parallel_attn else block.post_attention_layernorm
    before_mlp = block.ln_mlp if has_two_norms else after
    alibi = _alibi(attention.num_heads, scale) if config.alibi else None
    return Block(
        before_attention=read_norm(block.ln_attn if has_two_norms else block.input_layernorm),
        attention=Attention(
            projections=(read_linear(attention.query_key_value, as_linear),),
            split=_split(attention, kv_heads, groups, width),
            shape=Shape(kv_heads, groups, width, scale, alibi=alibi),
            out=read_linear(attention.dense, as_linear),
            is_rotary=not config.alibi,
        ),
        after_attention=None,
        before_mlp=None if before_mlp is None else read_norm(before_mlp),
        mlp=read_mlp(mlp.dense_h_to_4h, mlp.dense_4h_to_h, activation=mlp.act, as_linear=as_linear),
        after_mlp=None,
        is_parallel=config.parallel_attn,
    )


def _kv_heads(attention: Any) -> int:
    if attention.new_decoder_architecture:
        return int(attention.num_kv_heads)
    return 1 if attention.multi_query else int(attention.num_heads)


def _split(attention: Any, kv_heads: int, groups: int, width: int) -> Split:
    if attention.new_decoder_architecture:
        return grouped(kv_heads, groups, head_dim=width)
    if attention.multi_query:
        return consecutive(attention.num_heads, 1, head_dim=width)
    return interleaved(attention.num_heads, width)


@cache
def _alibi(heads: int, scale: float) -> PositionBias:
    """One for all layers."""
    return PositionBias(partial(_build_alibi, heads, scale))


def _build_alibi(heads: int, scale: float, length: int) -> torch.Tensor:
    """[heads,S] the library's own, rounded to bfloat16 as there; it is scaled like the scores."""
    mask = torch.ones(1, length, dtype=torch.long)
    return build_alibi_tensor(mask, heads, torch.float32)[:, 0] * scale


def embed(inner: Any, input_ids: torch.Tensor, *, position_ids: torch.Tensor) -> torch.Tensor:
    """Token ids [1,T] -> [1,T,H]."""
    states: torch.Tensor = inner.word_embeddings(input_ids)
    return states
