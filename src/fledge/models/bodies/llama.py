"""Llama and those built like it (Mistral, Qwen2, Gemma, Gemma 2): rotary, a projection each, RMS norms, a gate."""

from typing import Any

import torch

from fledge.engine.parts import Attention, Block
from fledge.errors import NotReadable
from fledge.models.bodies.reading import AsLinear, read_linear, read_mlp, read_norm, separate
from fledge.ops.plan import Shape


def read_block(block: Any, as_linear: AsLinear) -> Block:
    """A decoder layer with self_attn.{q,k,v,o}_proj and mlp.{gate,up,down}_proj."""
    attention, mlp = block.self_attn, block.mlp
    if any(hasattr(attention, name) for name in ("q_norm", "k_norm")):
        raise NotReadable("norms on queries and keys")
    kv_heads, groups, width = _heads(attention)
    has_norms_after = hasattr(block, "pre_feedforward_layernorm")
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return Block(
        before_attention=read_norm(block.input_layernorm),
        attention=Attention(
            projections=tuple(read_linear(module, as_linear) for module in projections),
            split=separate(kv_heads, groups, head_dim=width),
            shape=Shape(
                kv_heads, groups, width, attention.scaling, softcap=_softcap(attention), window=_window(attention)
            ),
            out=read_linear(attention.o_proj, as_linear),
            is_rotary=True,
        ),
        after_attention=read_norm(block.post_attention_layernorm) if has_norms_after else None,
        before_mlp=read_norm(block.pre_feedforward_layernorm if has_norms_after else block.post_attention_layernorm),
        mlp=read_mlp(mlp.up_proj, mlp.down_proj, activation=mlp.act_fn, as_linear=as_linear, gate=mlp.gate_proj),
        after_mlp=read_norm(block.post_feedforward_layernorm) if has_norms_after else None,
        is_parallel=False,
    )


def _heads(attention: Any) -> tuple[int, int, int]:
    """Key/value heads, query heads for each, features of a head."""
    kv_heads = attention.config.num_key_value_heads
    return kv_heads, attention.config.num_attention_heads // kv_heads, attention.head_dim


def _softcap(attention: Any) -> float | None:
    cap: float | None = getattr(attention, "attn_logit_softcapping", None)
    return cap


def _window(attention: Any) -> int | None:
    """The layer's own window where layers differ, else the model's."""
    per_layer = hasattr(attention, "sliding_window")
    window: int | None = attention.sliding_window if per_layer else getattr(attention.config, "sliding_window", None)
    return window


def embed(inner: Any, input_ids: torch.Tensor, *, position_ids: torch.Tensor) -> torch.Tensor:
    """Token ids [1,T] -> [1,T,H]."""
    states: torch.Tensor = inner.embed_tokens(input_ids)
    return states
