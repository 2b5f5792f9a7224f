"""BLOOM: ALiBi, one projection interleaved by head, layer norms, tanh GELU."""

from functools import cache, partial
from typing import Any

import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from fledge.engine.parts import Attention, Block
from fledge.errors import NotReadable
from fledge.models.bodies.position_bias import PositionBias
from fledge.models.bodies.reading import AsLinear, interleaved, read_linear, read_mlp, read_norm
from fledge.ops.plan import Shape


def read_block(block: Any, as_linear: AsLinear) -> Block:
    """A BloomBlock."""
    attention, mlp = block.self_attention, block.mlp
    if block.apply_residual_connection_post_layernorm:
        raise NotReadable("a residual after the norm")
    if mlp.pretraining_tp > 1 and mlp.slow_but_exact:
        raise NotReadable("products in slices")
    heads, width = attention.num_heads, attention.head_dim
    return Block(
        before_attention=read_norm(block.input_layernorm),
        attention=Attention(
            projections=(read_linear(attention.query_key_value, as_linear),),
            split=interleaved(heads, width),
            shape=Shape(heads, 1, width, attention.inv_norm_factor, alibi=_alibi(heads)),
            out=read_linear(attention.dense, as_linear),
            is_rotary=False,
        ),
        after_attention=None,
        before_mlp=read_norm(block.post_attention_layernorm),
        mlp=read_mlp(mlp.dense_h_to_4h, mlp.dense_4h_to_h, activation=mlp.gelu_impl, as_linear=as_linear),
        after_mlp=None,
        is_parallel=False,
    )


@cache
def _alibi(heads: int) -> PositionBias:
    """One for all layers."""
    return PositionBias(partial(_build_alibi, heads))


def _build_alibi(heads: int, length: int) -> torch.Tensor:
    """[heads,S] the library's own, in float32."""
    return build_alibi_tensor(torch.ones(1, length), heads, torch.float32)[:, 0]


def embed(inner: Any, input_ids: torch.Tensor, *, position_ids: torch.Tensor) -> torch.Tensor:
    """Token ids [1,T] -> [1,T,H]."""
    states: torch.Tensor = inner.word_embeddings_layernorm(inner.word_embeddings(input_ids))
    return states
