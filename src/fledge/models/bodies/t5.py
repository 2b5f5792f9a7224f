"""T5 and mT5: an encoder and a decoder of alike blocks, relative positions as a learned bias of the scores."""

import functools
from dataclasses import replace
from typing import Any

import torch

from fledge.engine.parts import Attention, Block, CrossAttention, Encoder, Mlp
from fledge.errors import NotReadable
from fledge.models.bodies.reading import AsLinear, read_linear, read_mlp, read_norm, separate
from fledge.ops.norm import Norm
from fledge.ops.plan import Shape


def read_encoder(model: Any, as_linear: AsLinear) -> Encoder:
    """The encoder of a model with get_encoder()."""
    stack = model.get_encoder()
    return Encoder(functools.partial(embed, stack), read_blocks(stack, as_linear), read_norm(stack.final_layer_norm))


def read_blocks(stack: Any, as_linear: AsLinear) -> tuple[Block, ...]:
    """The blocks of an encoder or a decoder; the first one's table of positions is everybody's."""
    table = stack.block[0].layer[0].SelfAttention
    if not table.has_relative_attention_bias or any(
        block.layer[0].SelfAttention.has_relative_attention_bias for block in stack.block[1:]
    ):
        raise NotReadable("a table of relative positions in each layer")
    if table.relative_attention_bias.weight.requires_grad:
        raise NotReadable("trained relative positions")
    relative = functools.partial(_relative, table)
    return tuple(_read_block(block, as_linear, relative=relative) for block in stack.block)


def read_last_norm(model: Any) -> Norm:
    """The decoder's last norm, with the factor that a tied head has before it."""
    norm, config = read_norm(model.get_decoder().final_layer_norm), model.config
    is_scaled = getattr(config, "scale_decoder_outputs", False)
    return replace(norm, weight=norm.weight * config.d_model**-0.5) if is_scaled else norm


def embed(stack: Any, input_ids: torch.Tensor, *, position_ids: torch.Tensor) -> torch.Tensor:
    """Token ids [1,T] -> [1,T,H]."""
    states: torch.Tensor = stack.embed_tokens(input_ids)
    return states


def _read_block(block: Any, as_linear: AsLinear, *, relative: Any) -> Block:
    layers = block.layer
    attention = layers[0].SelfAttention
    heads, width = attention.n_heads, attention.key_value_proj_dim
    shape = Shape(heads, 1, width, _scale(attention), relative=relative)
    return Block(
        before_attention=read_norm(layers[0].layer_norm),
        attention=Attention(
            projections=tuple(read_linear(part, as_linear) for part in (attention.q, attention.k, attention.v)),
            split=separate(heads, 1, head_dim=width),
            shape=shape,
            out=read_linear(attention.o, as_linear),
            is_rotary=False,
        ),
        after_attention=None,
        before_mlp=read_norm(layers[-1].layer_norm),
        mlp=_read_mlp(layers[-1].DenseReluDense, as_linear),
        after_mlp=None,
        is_parallel=False,
        cross=_read_cross(layers[1], as_linear) if attention.is_decoder else None,
    )


def _read_cross(layer: Any, as_linear: AsLinear) -> CrossAttention:
    attention = layer.EncDecAttention
    query, key, value, out = (
        read_linear(part, as_linear) for part in (attention.q, attention.k, attention.v, attention.o)
    )
    shape = Shape(attention.n_heads, 1, attention.key_value_proj_dim, _scale(attention))
    return CrossAttention(read_norm(layer.layer_norm), query, key, value, shape, out)


def _scale(attention: Any) -> float:
    return float(getattr(attention, "scaling", 1.0))


def _read_mlp(dense: Any, as_linear: AsLinear) -> Mlp:
    if hasattr(dense, "wi_0"):
        return read_mlp(dense.wi_1, dense.wo, activation=dense.act, as_linear=as_linear, gate=dense.wi_0)
    return read_mlp(dense.wi, dense.wo, activation=dense.act, as_linear=as_linear)


def _relative(table: Any, distance: torch.Tensor) -> torch.Tensor:
    """How far keys lie after queries [W,S] -> what is added to their scores [K,W,S], float32."""
    buckets = table._relative_position_bucket(
        distance,
        bidirectional=not table.is_decoder,
        num_buckets=table.relative_attention_num_buckets,
        max_distance=table.relative_attention_max_distance,
    )
    values: torch.Tensor = table.relative_attention_bias.weight.detach().float()[buckets]
    return values.permute(2, 0, 1)
