"""Attention of packed documents, and its gradient: documents of like length share one product.

Causal: every document sees itself and, where it continues a shared prefix, that prefix. An encoder's documents see all
of themselves; in cross-attention a decoder's see those of the encoder, which lie in a row of their own. Memory grows
with the length of a document, never with its square beyond a tile, nor with the packed length. Works on any device
that torch knows.

Shapes: T packed positions, K key/value heads, G query heads for each of them, D features of a head; n documents of a
group, W their query positions in a tile, P positions of their prefix, S keys of a tile. W and S are
rounded up (grain.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch

from fledge.ops.buffers import Buffers
from fledge.ops.choice import fused
from fledge.ops.plan import Document, Group, Plan, Shape, Tile, tiles
from fledge.ops.product import bmm

MASKS = 64 << 20
"""Bytes that the masks of tiles may take together, to be made once for all layers."""


Projections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""q [T,K,G,D], k and v [T,K,D], of any strides; or their gradients."""
Kept = tuple[torch.Tensor, torch.Tensor]
"""out [T,K,G,D] and sums [K*G,T] of `attend`."""


def attend(
    qkv: Projections,
    *,
    shape: Shape,
    plan: Plan,
    buffers: Buffers,
    out: torch.Tensor,
    sums: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of q [T,K,G,D] over k and v [T,K,D], of any strides, into out [T,K,G,D]. Scores are float32.

    With `sums` [K*G,T] float32 the fused kernels compute it, and leave there what their gradient needs beside `out`.
    """
    q, k, v = qkv
    if sums is not None:
        attended: torch.Tensor = _fused(q).attend(qkv, shape=shape, plan=plan, buffers=buffers, out=out, sums=sums)
        return attended
    for group in plan.groups:
        keys = _gather(k, group, "k32", shape, buffers, dtype=torch.float32)
        values = _gather(v, group, "v", shape, buffers, dtype=v.dtype)
        for tile in tiles(group, shape):
            queries = _gather_queries(q, tile, "q32", shape, buffers, dtype=torch.float32)
            scores, _ = _probabilities(queries, keys, tile, shape=shape, plan=plan, buffers=buffers, dtype=v.dtype)
            weights = _narrow(scores, v.dtype, "p", buffers)
            mixed = buffers.take("attention.o", *queries.shape, dtype=v.dtype)
            bmm(weights, values[:, tile.low : tile.high], out=mixed)
            _scatter_queries(mixed, out, tile, shape)
    return out


def attend_gradient(
    do: torch.Tensor,
    qkv: Projections,
    *,
    shape: Shape,
    plan: Plan,
    buffers: Buffers,
    into: Projections,
    kept: Kept | None = None,
) -> None:
    """The gradients of q, k and v for do [T,K,G,D], written `into` tensors of their shapes; in cross-attention those of
    k and v are added to what is there, for documents may see the same keys.

    The probabilities P are computed again. dV = P^T dO; dS = P * (dO V^T - rowsum(P * dO V^T)); dQ = s dS K;
    dK = s dS^T Q, where s is the scale. `kept` is what `attend` gave where the fused kernels computed it.
    """
    q, k, v = qkv
    if kept is not None:
        _fused(q).attend_gradient(do, qkv, shape=shape, plan=plan, buffers=buffers, kept=kept, into=into)
        return
    dq, dk, dv = into
    for group in plan.groups:
        keys = _gather(k, group, "k", shape, buffers, dtype=k.dtype)
        values = _gather(v, group, "v", shape, buffers, dtype=v.dtype)
        wide = _widen(keys, "k32", buffers)
        parts = list(tiles(group, shape))
        is_whole = len(parts) == 1 and parts[0].low == 0 and parts[0].high == group.keys
        sums = [_Sum(f"attention.d{name}", keys, buffers, is_whole=is_whole) for name in "kv"]
        for tile in parts:
            seen = slice(tile.low, tile.high)
            queries = _gather_queries(q, tile, "q", shape, buffers, dtype=q.dtype)
            given = _gather_queries(do, tile, "do", shape, buffers, dtype=do.dtype)
            scores, bent = _probabilities(
                _widen(queries, "q32", buffers), wide, tile, shape=shape, plan=plan, buffers=buffers, dtype=v.dtype
            )
            weights = _narrow(scores, v.dtype, "p", buffers)
            ds = _score_gradient(given, values[:, seen], scores, bent, shape=shape, buffers=buffers)
            sums[0].add(ds, queries, seen=seen)
            sums[1].add(weights, given, seen=seen)
            mixed = buffers.take("attention.o", *queries.shape, dtype=v.dtype)
            _scatter_queries(bmm(ds, keys[:, seen], out=mixed), dq, tile, shape)
        _scatter_keys(sums[0].total, dk, group, shape)
        _scatter_keys(sums[1].total, dv, group, shape)


def _fused(x: torch.Tensor) -> ModuleType:
    """The kernels, which the caller has chosen by giving memory for sums."""
    kernels = fused("attention", x)
    assert kernels is not None, "this device runs no fused kernels"
    return kernels


class _Sum:
    """A gradient of a group's keys or values [n*K, P+W, D], over its tiles: in float32 where there are several."""

    def __init__(self, name: str, like: torch.Tensor, buffers: Buffers, *, is_whole: bool) -> None:
        self._name, self._buffers, self._is_whole = name, buffers, is_whole
        self.total = buffers.take(name, *like.shape, dtype=like.dtype if is_whole else torch.float32)
        if not is_whole:
            self.total.zero_()

    def add(self, left: torch.Tensor, right: torch.Tensor, *, seen: slice) -> None:
        """Add left^T right to the keys `seen`."""
        if self._is_whole:
            bmm(left.transpose(1, 2), right, out=self.total)
            return
        sizes = (left.shape[0], left.shape[2], right.shape[2])
        part = bmm(left.transpose(1, 2), right, out=self._buffers.take("attention.d", *sizes, dtype=left.dtype))
        self.total[:, seen].add_(_widen(part, "d32", self._buffers))


def _gather(
    x: torch.Tensor, group: Group, name: str, shape: Shape, buffers: Buffers, *, dtype: torch.dtype
) -> torch.Tensor:
    """Keys or values of a group, prefix first: [n*K, P+W, D], zeros where a document is shorter than the longest."""
    count, total = len(group.documents), group.keys
    into = buffers.take(f"attention.{name}", count, shape.kv_heads, total, shape.head_dim, dtype=dtype)
    for number, document in enumerate(group.documents):
        at = 0
        for start, end in document.keys:
            into[number, :, at : at + end - start].copy_(x[start:end].transpose(0, 1))
            at += end - start
        if at < total:
            into[number, :, at:].zero_()
    return into.view(count * shape.kv_heads, total, shape.head_dim)


def _gather_queries(
    x: torch.Tensor, tile: Tile, name: str, shape: Shape, buffers: Buffers, *, dtype: torch.dtype
) -> torch.Tensor:
    """Queries of a tile, the heads that share keys under each other: [n*K, G*W, D]."""
    documents, width = tile.group.documents, tile.last - tile.first
    sizes = (len(documents), shape.kv_heads, shape.groups, width, shape.head_dim)
    into = buffers.take(f"attention.{name}", *sizes, dtype=dtype)
    for number, document in enumerate(documents):
        rows = x[document.start + tile.first : min(document.start + tile.last, document.end)]
        into[number, :, :, : rows.shape[0]].copy_(rows.permute(1, 2, 0, 3))
        if rows.shape[0] < width:
            into[number, :, :, rows.shape[0] :].zero_()
    return into.view(sizes[0] * sizes[1], sizes[2] * width, shape.head_dim)


def _scatter_queries(mixed: torch.Tensor, into: torch.Tensor, tile: Tile, shape: Shape) -> None:
    """[n*K, G*W, D] back to [T,K,G,D]."""
    documents = tile.group.documents
    parts = mixed.view(len(documents), shape.kv_heads, shape.groups, tile.last - tile.first, shape.head_dim)
    for number, document in enumerate(documents):
        rows = into[document.start + tile.first : min(document.start + tile.last, document.end)]
        rows.copy_(parts[number, :, :, : rows.shape[0]].permute(2, 0, 1, 3))


def _scatter_keys(total: torch.Tensor, into: torch.Tensor, group: Group, shape: Shape) -> None:
    """[n*K, P+W, D] into [T,K,D]: a document's own are written, its prefix's added to what is there, in float32."""
    parts = total.view(len(group.documents), shape.kv_heads, -1, shape.head_dim)
    shared: dict[tuple[int, int], torch.Tensor] = {}
    for number, document in enumerate(group.documents):
        at = 0
        for start, end in document.prefix:
            part = parts[number, :, at : at + end - start].float()
            shared[start, end] = part if (start, end) not in shared else shared[start, end] + part
            at += end - start
        if not document.is_across:
            own = parts[number, :, at : at + document.end - document.start]
            into[document.start : document.end].copy_(own.transpose(0, 1))
    for (start, end), part in shared.items():
        into[start:end].copy_(into[start:end].float().add_(part.transpose(0, 1)))


@contextmanager
def _widened_from(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Within it a CPU's float32 product may read its factors as bfloat16, where that is what they were widened from:
    no bit is lost, the sums stay float32, and the product takes half the time or less.
    """
    if dtype != torch.bfloat16 or device.type != "cpu":
        yield
        return
    setting = torch.backends.mkldnn.matmul
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def _probabilities(
    queries: torch.Tensor,
    keys: torch.Tensor,
    tile: Tile,
    *,
    shape: Shape,
    plan: Plan,
    buffers: Buffers,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """softmax of the scores, float32 [n*K, G*W, S], and tanh of the scores where they are capped; for queries and
    keys in float32, which were widened from `dtype`.
    """
    seen = keys[:, tile.low : tile.high]
    sizes = (queries.shape[0], queries.shape[1], seen.shape[1])
    scores = buffers.take("attention.s", *sizes, dtype=torch.float32)
    bias = _bias(tile, shape, plan, queries.device)
    split = scores.view(len(tile.group.documents), *bias.shape[1:])
    if shape.softcap is None:
        split.copy_(bias.expand_as(split))
        with _widened_from(dtype, scores.device):
            scores.baddbmm_(queries, seen.transpose(1, 2), alpha=shape.scale)
        bent = None
    else:
        with _widened_from(dtype, scores.device):
            scores.baddbmm_(queries, seen.transpose(1, 2), beta=0, alpha=shape.scale / shape.softcap)
        bent = torch.tanh(scores, out=buffers.take("attention.tanh", *sizes, dtype=torch.float32))
        torch.mul(bent, shape.softcap, out=scores)
        split += bias
    return torch.softmax(scores, -1, out=scores), bent


def _score_gradient(
    given: torch.Tensor,
    values: torch.Tensor,
    weights: torch.Tensor,
    bent: torch.Tensor | None,
    *,
    shape: Shape,
    buffers: Buffers,
) -> torch.Tensor:
    """s dS in the values' number format [n*K, G*W, S]."""
    narrow = buffers.take("attention.dp", *weights.shape, dtype=values.dtype)
    bmm(given, values.transpose(1, 2), out=narrow)
    ds = narrow if values.dtype == torch.float32 else buffers.take("attention.ds", *weights.shape, dtype=torch.float32)
    if ds is not narrow:
        ds.copy_(narrow)
    torch.ops.aten._softmax_backward_data.out(ds, weights, -1, torch.float32, grad_input=ds)
    if bent is not None:
        ds.sub_(bent.square_().mul_(ds))
    if shape.scale != 1.0:
        ds.mul_(shape.scale)
    return ds if ds is narrow else narrow.copy_(ds)


def _bias(tile: Tile, shape: Shape, plan: Plan, device: torch.device) -> torch.Tensor:
    """What is added to the scores, [1 or n,K,G,W,S]: minus infinity where a key is out of sight.

    Made once for all layers; where a document is cut into tiles, only while all of them together stay small, for they
    would grow with its square.
    ALiBi is taken relative to the query's own, which softmax does not see, so that long documents lose no precision.
    """
    place = (tile.group.prefix, tile.group.visible, tile.first, tile.last, tile.low, tile.high)
    key = (place, shape.window, shape.alibi, shape.relative, shape.kv_heads, shape.groups)
    found = plan.masks.get(key)
    if found is None:
        bias = _hide(_bias_by_place(tile, shape, device), tile, shape)
        heads = (shape.kv_heads, shape.groups)
        found = bias.expand(-1, shape.kv_heads * shape.groups, -1, -1).unflatten(1, heads)
        is_whole = tile.first == 0 and tile.last == tile.group.width
        held = sum(mask.untyped_storage().nbytes() for mask in plan.masks.values())
        if is_whole or held + bias.nbytes <= MASKS:
            plan.masks[key] = found
    return found


def _bias_by_place(tile: Tile, shape: Shape, device: torch.device) -> torch.Tensor:
    """[1 or K*G,W,S] what is added to the scores for where queries and keys stand."""
    first, last = tile.group.prefix + tile.first, tile.group.prefix + tile.last
    if shape.alibi is not None:
        table = shape.alibi(tile.high, device)
        return table[:, None, tile.low : tile.high] - table[:, first:last, None]
    width, seen = last - first, tile.high - tile.low
    if shape.relative is None:
        return torch.zeros(1, width, seen, device=device)
    # each query's row is the row before it, moved by one: windows of one table, the last query's first
    distances = torch.arange(tile.low - last + 1, tile.high - first, device=device)
    return shape.relative(distances[None])[:, 0].contiguous().unfold(1, seen, 1).flip(1)


def _hide(bias: torch.Tensor, tile: Tile, shape: Shape) -> torch.Tensor:
    """The bias [1 or n,1 or K*G,W,S], minus infinity where a query does not see a key."""
    if tile.group.visible is not None:
        alike = set(tile.group.visible)
        each = bias[None] if len(alike) == 1 else bias.repeat(len(tile.group.visible), 1, 1, 1)
        for part, visible in zip(each, tile.group.visible, strict=False):
            part[:, :, max(0, visible - tile.low) :] = float("-inf")
        return each
    query = torch.arange(tile.first, tile.last, device=bias.device) + tile.group.prefix
    distance = torch.arange(tile.low, tile.high, device=bias.device)[None] - query[:, None]
    hidden = distance > 0
    if shape.window is not None:
        hidden |= distance <= -shape.window
    return bias.masked_fill_(hidden, float("-inf"))[None]


def _widen(x: torch.Tensor, name: str, buffers: Buffers) -> torch.Tensor:
    if x.dtype == torch.float32:
        return x
    return buffers.take(f"attention.{name}", *x.shape, dtype=torch.float32).copy_(x)


def _narrow(x: torch.Tensor, dtype: torch.dtype, name: str, buffers: Buffers) -> torch.Tensor:
    return x if x.dtype == dtype else buffers.take(f"attention.{name}", *x.shape, dtype=dtype).copy_(x)


def reference_attend(
    qkv: Projections, *, shape: Shape, documents: Sequence[Document], is_causal: bool = True
) -> torch.Tensor:
    """The same, document by document in plain differentiable torch: [T,K,G,D]."""
    q, k, v = qkv
    out = torch.zeros_like(q)
    for document in documents:
        keys, values = (torch.cat([x[a:b] for a, b in document.keys]) for x in (k, v))
        scores = torch.einsum("qkgd,skd->kgqs", q[document.start : document.end].float(), keys.float()) * shape.scale
        if shape.softcap is not None:
            scores = shape.softcap * torch.tanh(scores / shape.softcap)
        if shape.alibi is not None:
            bias = shape.alibi(keys.shape[0], q.device)
            scores = scores + bias.unflatten(0, (shape.kv_heads, shape.groups))[:, :, None]
        query = torch.arange(document.end - document.start, device=q.device)[:, None] + document.prefix_length
        distance = torch.arange(keys.shape[0], device=q.device)[None] - query
        if shape.relative is not None:
            scores = scores + shape.relative(distance).unflatten(0, (shape.kv_heads, shape.groups))
        hidden = is_causal & ((distance > 0) | (distance <= -(shape.window or 1 << 30)))
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1).to(v.dtype)
        rows = torch.arange(document.start, document.end, device=q.device)
        out = out.index_put((rows,), torch.einsum("kgqs,skd->qkgd", weights, values))
    return out
