"""GPT-2: learnt positions, one projection with q, k and v after each other, weights stored transposed."""

from typing import Any

import torch

from fledge.engine.parts import Attention, Block
from fledge.models.bodies.reading import AsLinear, consecutive, read_linear, read_mlp, read_norm
from fledge.ops.plan import Shape


def read_block(block: Any, as_linear: AsLinear) -> Block:
    """A GPT2Block."""
    attention, mlp = block.attn, block.mlp
    heads, width = attention.num_heads, attention.head_dim
    return Block(
        before_attention=read_norm(block.ln_1),
        attention=Attention(
            projections=(read_linear(attention.c_attn, as_linear),),
            split=consecutive(heads, heads, head_dim=width),
            shape=Shape(heads, 1, width, attention.scaling),
            out=read_linear(attention.c_proj, as_linear),
            is_rotary=False,
        ),
        after_attention=None,
        before_mlp=read_norm(block.ln_2),
        mlp=read_mlp(mlp.c_fc, mlp.c_proj, activation=mlp.act, as_linear=as_linear),
        after_mlp=None,
        is_parallel=False,
    )


def embed(inner: Any, input_ids: torch.Tensor, *, position_ids: torch.Tensor) -> torch.Tensor:
    """Token ids and positions [1,T] -> [1,T,H]."""
    states: torch.Tensor = inner.wte(input_ids) + inner.wpe(position_ids)
    return states
