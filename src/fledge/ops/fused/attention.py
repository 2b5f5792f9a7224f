"""Attention of packed documents without their scores in memory, and its gradient: how the kernels are called.

What documents share is read where it lies (layout.py).

Shapes: T packed positions, K key/value heads, G query heads for each of them, D features of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton

from fledge.ops.buffers import Buffers
from fledge.ops.choice import WIDEST
from fledge.ops.fused import attention_kernels as kernels
from fledge.ops.fused.layout import Layout, lay_out
from fledge.ops.plan import Document, Plan, Shape

_Projections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def attend(
    qkv: _Projections, *, shape: Shape, plan: Plan, buffers: Buffers, out: torch.Tensor, sums: torch.Tensor
) -> torch.Tensor:
    """Attention into out [T,K,G,D]; the logarithm of each query's total into sums [K*G,T] float32, to base two."""
    q, k, v = qkv
    tiling = _tiling(shape, q)
    layout = _layout(plan, tiling, q, groups=shape.groups)
    kernels.forward[len(layout.query_tiles), shape.kv_heads * shape.groups](
        q, k, v, out, sums, layout.query_tiles, layout.documents, layout.seen, *_common(shape, plan, layout, q),
        sums.shape[1], *q.stride()[:3], *k.stride()[:2], *v.stride()[:2], *out.stride()[:3], **_width(shape),
        BM=tiling.queries, BN=tiling.seen, **_kinds(shape, plan), num_warps=tiling.warps, num_stages=2,
    )  # fmt: skip
    return out


def attend_gradient(
    do: torch.Tensor,
    qkv: _Projections,
    *,
    shape: Shape,
    plan: Plan,
    buffers: Buffers,
    kept: tuple[torch.Tensor, torch.Tensor],
    into: _Projections,
) -> None:
    """The gradients of q, k and v, written `into` tensors of their shapes; where another row than the queries' holds
    the keys, those of k and v are added to what is there. `kept` is out and sums that `attend` gave.
    """
    (q, k, v), dq, (out, sums) = qkv, into[0], kept
    heads, tiling = shape.kv_heads * shape.groups, _tiling(shape, q)
    delta = buffers.take("attention.delta", *sums.shape, dtype=sums.dtype)
    layout = _layout(plan, tiling, q, groups=shape.groups)
    kernels.along[len(layout.query_tiles), heads](
        out, do, delta, layout.query_tiles, layout.documents, sums.shape[1], *out.stride()[:3], *do.stride()[:3],
        **_width(shape), BM=tiling.queries,
    )  # fmt: skip
    given = (q, k, v, do, sums, delta)
    common = (*_common(shape, plan, layout, q), sums.shape[1])
    rows = (*q.stride()[:3], *k.stride()[:2], *v.stride()[:2], *do.stride()[:3])
    kinds = _width(shape) | _kinds(shape, plan) | {"num_warps": tiling.warps, "num_stages": 2}
    _keys_gradient(given, into, plan=plan, layout=layout, tiling=tiling, numbers=(*common, *rows), kinds=kinds)
    kernels.of_queries[len(layout.query_tiles), heads](
        *given, dq, layout.query_tiles, layout.documents, layout.seen, *common, *rows, *dq.stride()[:3],
        BM=tiling.queries, BN=tiling.seen, **kinds,
    )  # fmt: skip


def _keys_gradient(
    given: tuple[torch.Tensor, ...],
    into: _Projections,
    *,
    plan: Plan,
    layout: Layout,
    tiling: "Tiling",
    numbers: tuple[Any, ...],
    kinds: dict[str, Any],
) -> None:
    """The gradients of k and v, in two rounds where many documents see the same keys."""
    _, dk, dv = into
    kv_heads, steps = dk.shape[1], (*dk.stride()[:2], *dv.stride()[:2])
    adds = any(document.is_across for document in _documents(plan))
    parts = torch.empty(layout.slots, kv_heads, 2, tiling.keys, kinds["WIDE"], device=dk.device)
    kernels.of_keys[len(layout.key_tiles), kv_heads](
        *given, dk, dv, parts, layout.key_tiles, layout.keys, layout.viewers, *numbers, *steps,
        BM=tiling.viewing, BN=tiling.keys, ADDS=adds, **kinds,
    )  # fmt: skip
    if layout.slots:
        kernels.join_keys[len(layout.joined), kv_heads](
            parts, dk, dv, layout.joined, layout.keys, *steps,
            D=kinds["D"], WIDE=kinds["WIDE"], BN=tiling.keys, ADDS=adds,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tiling:
    """How much a program has and how much it visits at a time."""

    queries: int
    seen: int
    """Keys that so many queries visit at a time."""
    keys: int
    viewing: int
    """Queries that so many keys visit at a time."""
    warps: int


TILINGS: dict[str, tuple[tuple[int, int, Tiling], ...]] = {
    "float32": ((64, 0, Tiling(32, 32, 32, 32, 4)), (WIDEST, 0, Tiling(16, 16, 16, 16, 4))),
    "half": (
        (128, 0, Tiling(64, 64, 64, 64, 4)),
        (WIDEST, 112 << 10, Tiling(64, 32, 64, 32, 8)),
        (WIDEST, 0, Tiling(32, 32, 32, 32, 4)),
    ),
}
"""By number format: for so many features of a head or fewer, on cards with so many bytes of shared memory for a program
or more. Those for half precision and 128 features are the fastest of some that were tried (bench/log.md).
"""


def _tiling(shape: Shape, q: torch.Tensor) -> Tiling:
    kind, memory = "float32" if q.dtype == torch.float32 else "half", _shared_memory(q.device)
    return next(found for width, least, found in TILINGS[kind] if shape.head_dim <= width and memory >= least)


@cache
def _shared_memory(device: torch.device) -> float:
    """Bytes that a program may have in shared memory."""
    if device.type != "cuda":
        return float("inf")
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)


def _documents(plan: Plan) -> Sequence[Document]:
    return [document for group in plan.groups for document in group.documents]


def _is_causal(plan: Plan) -> bool:
    return plan.groups[0].visible is None


def _layout(plan: Plan, tiling: Tiling, q: torch.Tensor, *, groups: int) -> Layout:
    """One for all layers whose tiles are alike."""
    key = (tiling.queries, tiling.keys, groups, q.device)
    if key not in plan.layouts:
        tile, documents, is_causal = (tiling.queries, tiling.keys), _documents(plan), _is_causal(plan)
        plan.layouts[key] = lay_out(documents, tile=tile, groups=groups, is_causal=is_causal, device=q.device)
    found: Layout = plan.layouts[key]
    return found


def _width(shape: Shape) -> dict[str, Any]:
    """Features of a head, and the kernels' power of two, at least what their products take."""
    return {"G": shape.groups, "D": shape.head_dim, "WIDE": max(16, triton.next_power_of_2(shape.head_dim))}


def _kinds(shape: Shape, plan: Plan) -> dict[str, bool]:
    return {
        "CAPPED": shape.softcap is not None,
        "ALIBI": shape.alibi is not None,
        "RELATIVE": shape.relative is not None,
        "CAUSAL": _is_causal(plan),
        "WINDOWED": _is_causal(plan) and shape.window is not None,
    }


def _common(shape: Shape, plan: Plan, layout: Layout, q: torch.Tensor) -> tuple[Any, ...]:
    """What is added to the scores by position, and the numbers that make them."""
    reach = max(layout.reach, 1)
    key = (shape.alibi, shape.relative, q.device)
    if key not in plan.layouts:
        alibi = q if shape.alibi is None else shape.alibi(reach, q.device).contiguous()
        relative = q
        if shape.relative is not None:
            relative = shape.relative(torch.arange(1 - reach, reach, device=q.device)[None])[:, 0].contiguous()
        plan.layouts[key] = alibi, relative
    return *plan.layouts[key], shape.scale, shape.softcap or 1.0, shape.window or 0, reach
