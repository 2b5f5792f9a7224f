"""GPT-NeoX: rotary on part of a head, one projection interleaved by head, attention and MLP mostly side by side."""

from typing import Any

import torch

from fledge.engine.parts import Attention, Block
from fledge.models.bodies.reading import AsLinear, interleaved, read_linear, read_mlp, read_norm
from fledge.ops.plan import Shape


def read_block(block: Any, as_linear: AsLinear) -> Block:
    """A GPTNeoXLayer."""
    attention, mlp = block.attention, block.mlp
    heads, width = attention.config.num_attention_heads, attention.head_size
    return Block(
        before_attention=read_norm(block.input_layernorm),
        attention=Attention(
            projections=(read_linear(attention.query_key_value, as_linear),),
            split=interleaved(heads, width),
            shape=Shape(heads, 1, width, attention.scaling),
            out=read_linear(attention.dense, as_linear),
            is_rotary=True,
        ),
        after_attention=None,
        before_mlp=read_norm(block.post_attention_layernorm),
        mlp=read_mlp(mlp.dense_h_to_4h, mlp.dense_4h_to_h, activation=mlp.act, as_linear=as_linear),
        after_mlp=None,
        is_parallel=block.use_parallel_residual,
    )


def embed(inner: Any, input_ids: torch.Tensor, *, position_ids: torch.Tensor) -> torch.Tensor:
    """Token ids [1,T] -> [1,T,H]."""
    states: torch.Tensor = inner.embed_in(input_ids)
    return states
