"""Phi: one norm for attention and MLP, side by side; rotary on part of a head; biases everywhere."""

from typing import Any

from fledge.engine.parts import Attention, Block
from fledge.errors import NotReadable
from fledge.models.bodies.reading import AsLinear, read_linear, read_mlp, read_norm, separate
from fledge.ops.plan import Shape


def read_block(block: Any, as_linear: AsLinear) -> Block:
    """A PhiDecoderLayer."""
    attention, mlp = block.self_attn, block.mlp
    if attention.qk_layernorm:
        raise NotReadable("norms on queries and keys")
    config, projections = attention.config, (attention.q_proj, attention.k_proj, attention.v_proj)
    heads = (config.num_key_value_heads, config.num_attention_heads // config.num_key_value_heads, attention.head_dim)
    return Block(
        before_attention=read_norm(block.input_layernorm),
        attention=Attention(
            projections=tuple(read_linear(module, as_linear) for module in projections),
            split=separate(heads[0], heads[1], head_dim=heads[2]),
            shape=Shape(*heads, attention.scaling),
            out=read_linear(attention.dense, as_linear),
            is_rotary=True,
        ),
        after_attention=None,
        before_mlp=None,
        mlp=read_mlp(mlp.fc1, mlp.fc2, activation=mlp.activation_fn, as_linear=as_linear),
        after_mlp=None,
        is_parallel=True,
    )
