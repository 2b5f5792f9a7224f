"""Attention of packed documents without their scores in memory, and its gradient: how the kernels are called.

What documents share is read where it lies (layout.py).

Shapes: T packed positions, K key/value heads, G query heads for each of them, D features of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton

from fledge.ops.fused import attention_kernels as kernels
from fledge.ops.fused.layout import Layout, lay_out
from fledge.ops.plan import Document, Plan, Shape

_Projections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def attend(qkv: _Projections, *, shape: Shape, plan: Plan, out: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """Attention into out [T,K,G,D]; the logarithm of each query's total into sums [K*G,T] float32, to base two."""
    q, k, v = qkv
    tiling = _tiling(shape, q)
    layout = _layout(plan, tiling, q)
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
    out: torch.Tensor,
    sums: torch.Tensor,
    into: _Projections,
) -> None:
    """The gradients of q, k and v, written `into` tensors of their shapes; where another row than the queries' holds
    the keys, those of k and v are added to what is there. `out` and `sums` are what `attend` gave.
    """
    (q, k, v), (dq, dk, dv) = qkv, into
    heads, tiling, delta = shape.kv_heads * shape.groups, _tiling(shape, q), torch.empty_like(sums)
    layout = _layout(plan, tiling, q)
    common = (*_common(shape, plan, layout, q), sums.shape[1])
    kinds = _width(shape) | _kinds(shape, plan) | {"num_warps": tiling.warps, "num_stages": 2}
    rows = (*q.stride()[:3], *k.stride()[:2], *v.stride()[:2], *do.stride()[:3])
    kernels.along[len(layout.query_tiles), heads](
        out, do, delta, layout.query_tiles, layout.documents, sums.shape[1], *out.stride()[:3], *do.stride()[:3],
        **_width(shape), BM=tiling.queries,
    )  # fmt: skip
    kernels.of_keys[len(layout.key_tiles), shape.kv_heads](
        q, k, v, do, sums, delta, dk, dv, layout.key_tiles, layout.keys, layout.viewers, *common, *rows,
        *dk.stride()[:2], *dv.stride()[:2], BM=tiling.viewing, BN=tiling.keys,
        ADDS=any(document.is_across for document in _documents(plan)), **kinds,
    )  # fmt: skip
    kernels.of_queries[len(layout.query_tiles), heads](
        q, k, v, do, sums, delta, dq, layout.query_tiles, layout.documents, layout.seen, *common, *rows,
        *dq.stride()[:3], BM=tiling.queries, BN=tiling.seen, **kinds,
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


TILINGS: dict[str, dict[int, Tiling]] = {
    "float32": {64: Tiling(32, 32, 32, 32, 4), 256: Tiling(16, 16, 16, 16, 4)},
    "half": {128: Tiling(64, 64, 64, 64, 4), 256: Tiling(64, 32, 64, 32, 8)},
}
"""By number format, for so many features of a head or fewer: the fastest of those that were tried (bench/log.md)."""


def _tiling(shape: Shape, q: torch.Tensor) -> Tiling:
    kind = "float32" if q.dtype == torch.float32 else "half"
    return next(tiling for width, tiling in TILINGS[kind].items() if shape.head_dim <= width)


def _documents(plan: Plan) -> Sequence[Document]:
    return [document for group in plan.groups for document in group.documents]


def _is_causal(plan: Plan) -> bool:
    return plan.groups[0].visible is None


def _layout(plan: Plan, tiling: Tiling, q: torch.Tensor) -> Layout:
    """One for all layers whose tiles are alike."""
    tile = (tiling.queries, tiling.keys)
    if (tile, q.device) not in plan.layouts:
        documents, is_causal = _documents(plan), _is_causal(plan)
        plan.layouts[tile, q.device] = lay_out(documents, tile=tile, is_causal=is_causal, device=q.device)
    found: Layout = plan.layouts[tile, q.device]
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
