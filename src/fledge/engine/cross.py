"""Attention to what an encoder gives, forward and backward, by hand.

Shapes: T packed positions of the decoder, S of the encoder, H features of both, H' features of all heads.
"""

from dataclasses import dataclass

import torch

from fledge.engine.flow import Across, Flow
from fledge.engine.parts import CrossAttention
from fledge.ops.attention import Projections, attend, attend_gradient
from fledge.ops.lora_linear import linear, linear_gradients, linears
from fledge.ops.norm import add_norm_gradient, normalise


@dataclass(frozen=True, slots=True, eq=False)
class Crossed:
    """What the backward pass starts from."""

    x: torch.Tensor
    """[T,H] the input"""
    query: torch.Tensor
    """[T,H']"""
    key: torch.Tensor
    """[S,H']"""
    value: torch.Tensor
    """[S,H']"""
    mixed: torch.Tensor
    """[T,H'] what attention gives"""
    sums: torch.Tensor | None
    """[heads,T] what else its gradient needs of it, where fused kernels compute it"""


def cross_forward(cross: CrossAttention, x: torch.Tensor, *, flow: Flow, slot: str) -> tuple[torch.Tensor, Crossed]:
    """x [T,H] with what attention to the encoder adds, and what is saved."""
    across = _across(flow)
    sources, width = across.encoded.shape[0], cross.query.weight.shape[0]
    query = linear(_normal(cross, x, flow), cross.query, out=flow.keep(f"{slot}.query", x.shape[0], width))
    outs = [flow.keep(f"{slot}.{name}", sources, width) for name in ("key", "value")]
    key, value = linears(across.encoded, [cross.key, cross.value], outs=outs)
    sums = flow.sums(f"{slot}.crossed_sums", like=x, shape=cross.shape)
    is_needed = cross.out.lora is not None or sums is not None
    mixed = flow.keep(f"{slot}.crossed" if is_needed else "crossed", x.shape[0], width)
    qkv = _in_heads(cross, query, key, value)
    attend(qkv, shape=cross.shape, plan=across.plan, buffers=flow.buffers, out=mixed.view(qkv[0].shape), sums=sums)
    out = linear(mixed, cross.out, out=flow.keep(f"{slot}.across", *x.shape), residual=x)
    return out, Crossed(x, query, key, value, mixed, sums)


def cross_backward(
    cross: CrossAttention, dy: torch.Tensor, *, saved: Crossed, flow: Flow, encoded_gradient: torch.Tensor | None
) -> list[torch.Tensor]:
    """The gradients of the adapters for dy [T,H], which becomes the gradient of the input. What the encoder gave gets
    its gradient added into `encoded_gradient` [S,H] float32; None where nothing below needs it.
    """
    across = _across(flow)
    dmixed = flow.take("dmixed", *saved.mixed.shape)
    of_out = linear_gradients([dy], [cross.out], x=saved.mixed if cross.out.lora else None, dx=dmixed)
    dq = flow.take("dquery", *saved.query.shape)
    dk, dv = (flow.take(f"d{name}", *saved.key.shape).zero_() for name in ("key", "value"))
    qkv = _in_heads(cross, saved.query, saved.key, saved.value)
    into = _in_heads(cross, dq, dk, dv)
    kept = None if saved.sums is None else (saved.mixed.view(qkv[0].shape), saved.sums)
    attend_gradient(
        dmixed.view(qkv[0].shape), qkv, shape=cross.shape, plan=across.plan, buffers=flow.buffers, into=into, kept=kept
    )
    normal = _normal(cross, saved.x, flow) if cross.query.lora else None
    dnormal = flow.take("dprojection", *saved.x.shape)
    of_query = linear_gradients([dq], [cross.query], x=normal, dx=dnormal)
    dencoded = None if encoded_gradient is None else flow.take("dencoded", *across.encoded.shape)
    of_keys = linear_gradients([dk, dv], [cross.key, cross.value], x=across.encoded, dx=dencoded)
    if encoded_gradient is not None and dencoded is not None:
        encoded_gradient.add_(dencoded)
    add_norm_gradient(dy, dnormal, x=saved.x, norm=cross.norm, buffers=flow.buffers)
    return of_query + of_keys + of_out


def _across(flow: Flow) -> Across:
    assert flow.across is not None, "a decoder's blocks need what the encoder gives"
    return flow.across


def _normal(cross: CrossAttention, x: torch.Tensor, flow: Flow) -> torch.Tensor:
    return normalise(x, cross.norm, out=flow.take("normal", *x.shape), buffers=flow.buffers)


def _in_heads(cross: CrossAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Projections:
    heads, width = cross.shape.kv_heads, cross.shape.head_dim
    return query.view(-1, heads, 1, width), key.view(-1, heads, width), value.view(-1, heads, width)
