"""Attention of packed documents by the C++ kernel (attention.cpp), and its gradient: how it is called.

Shapes: T packed positions, K key/value heads, G query heads for each of them, D features of a head.
"""

import ctypes
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fledge.ops.buffers import Buffers
from fledge.ops.native.build import library
from fledge.ops.plan import Document, Plan, Shape

_Projections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
_POINTERS = "q k v dout out dq dk dv sums parts scratch alibi relative backwards documents ranges shared viewers"
_SIZES = "num_documents num_shared scratch_size positions reach most_keys"
_STEPS = {"q": 3, "k": 2, "v": 2, "out": 3, "dout": 3, "dq": 3, "dk": 2, "dv": 2}
_OVERRUN = 64
"""Values past a table's end that may be read, and are not used."""
_LANES = 16
"""Values of the widest vector; a row of a part is rounded up to it or less."""


class _Call(ctypes.Structure):
    """The structure `Attention` of attention.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS.split()),
        *((name, ctypes.c_int64) for name in _SIZES.split()),
        *((f"{name}_steps", ctypes.c_int64 * count) for name, count in _STEPS.items()),
        *((name, ctypes.c_int64) for name in ("kv_heads", "groups", "width", "window", "threads")),
        *((name, ctypes.c_int32) for name in ("is_causal", "adds", "is_half")),
        *((name, ctypes.c_float) for name in ("scale", "softcap")),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """int32 tables of which document sees what; attention.cpp says what their columns are."""

    documents: torch.Tensor
    ranges: torch.Tensor
    shared: torch.Tensor
    viewers: torch.Tensor
    slots: int
    reach: int
    """More than any position of a query or a key."""
    most_keys: int
    is_causal: bool
    adds: bool
    """Whether another row than the queries' holds the keys."""


def attend(
    qkv: _Projections, *, shape: Shape, plan: Plan, buffers: Buffers, out: torch.Tensor, sums: torch.Tensor
) -> torch.Tensor:
    """Attention into out [T,K,G,D]; the logarithm of each query's total into sums [K*G,T] float32."""
    q, k, v = qkv
    call = _call(shape, plan, {"q": q, "k": k, "v": v, "out": out})
    call.sums, call.positions = sums.data_ptr(), sums.shape[1]
    _bring_scratch(call, buffers, is_forward=True)
    library().attention_forward(ctypes.byref(call))
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
    (q, k, v), (dq, dk, dv), (out, sums) = qkv, into, kept
    call = _call(shape, plan, {"q": q, "k": k, "v": v, "out": out, "dout": do, "dq": dq, "dk": dk, "dv": dv})
    call.sums, call.positions = sums.data_ptr(), sums.shape[1]
    sizes = (layout_of(plan).slots, shape.kv_heads, 2, -(-shape.head_dim // _LANES) * _LANES)
    call.parts = buffers.take("attention.parts", *sizes, dtype=torch.float32).data_ptr()
    _bring_scratch(call, buffers, is_forward=False)
    library().attention_backward(ctypes.byref(call))


def _call(shape: Shape, plan: Plan, tensors: dict[str, torch.Tensor]) -> _Call:
    layout, call = layout_of(plan), _Call()
    for name, x in tensors.items():
        assert x.stride(-1) == 1, f"the features of {name} do not lie beside each other"
        setattr(call, name, x.data_ptr())
        steps = getattr(call, f"{name}_steps")
        steps[:] = x.stride()[: len(steps)]
    for name in ("documents", "ranges", "shared", "viewers"):
        setattr(call, name, getattr(layout, name).data_ptr())
    call.num_documents, call.num_shared = len(layout.documents), len(layout.shared)
    call.reach, call.most_keys = layout.reach, layout.most_keys
    call.kv_heads, call.groups, call.width = shape.kv_heads, shape.groups, shape.head_dim
    call.window, call.softcap, call.scale = shape.window or 0, shape.softcap or 0.0, shape.scale
    call.is_causal, call.adds = layout.is_causal, layout.adds
    call.is_half = tensors["q"].dtype == torch.bfloat16
    call.threads = torch.get_num_threads()
    for name, table in _bias(shape, plan).items():
        setattr(call, name, table.data_ptr())
    return call


def _bring_scratch(call: _Call, buffers: Buffers, *, is_forward: bool) -> None:
    memory = library().attention_memory
    memory.restype = ctypes.c_int64
    call.scratch_size = memory(ctypes.byref(call), is_forward)
    call.scratch = buffers.take(
        "attention.scratch", call.threads, call.scratch_size // 4, dtype=torch.float32
    ).data_ptr()


def _bias(shape: Shape, plan: Plan) -> dict[str, torch.Tensor]:
    """What is added to the scores by position, once for all layers."""
    reach, key = layout_of(plan).reach, ("bias", shape.alibi, shape.relative)
    if key not in plan.layouts:
        tables = {}
        if shape.alibi is not None:
            tables["alibi"] = _lengthened(shape.alibi(reach, torch.device("cpu")))
        if shape.relative is not None:
            by_distance = shape.relative(torch.arange(1 - reach, reach)[None])[:, 0]
            tables |= {"relative": _lengthened(by_distance), "backwards": _lengthened(by_distance.flip(1))}
        plan.layouts[key] = tables
    found: dict[str, torch.Tensor] = plan.layouts[key]
    return found


def _lengthened(table: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(table.flatten().float(), (0, _OVERRUN))


def layout_of(plan: Plan) -> Layout:
    """The tables of a plan, made once for all layers."""
    if "native" not in plan.layouts:
        documents = [document for group in plan.groups for document in group.documents]
        plan.layouts["native"] = lay_out(documents, is_causal=plan.groups[0].visible is None)
    found: Layout = plan.layouts["native"]
    return found


def lay_out(documents: Sequence[Document], *, is_causal: bool) -> Layout:
    """The tables; documents that have most to do come first, so that none of them is left for the end."""
    count = Counter(span for document in documents for span in document.keys)
    seen: dict[tuple[int, int], list[int]] = {}  # a range -> the first slot of each document that sees it
    rows: list[tuple[int, ...]] = []
    ranges: list[tuple[int, int, int]] = []
    slots = 0
    for document in sorted(documents, key=lambda found: -(found.end - found.start) * found.num_keys):
        first, length = len(ranges), document.end - document.start
        for start, end in document.keys:
            is_shared = count[start, end] > 1
            ranges.append((start, end - start, slots if is_shared else -1))
            if is_shared:
                seen.setdefault((start, end), []).append(slots)
                slots += end - start
        rows.append((document.start, length, document.prefix_length if is_causal else 0, first, len(ranges)))
    most_keys = max(document.num_keys for document in documents)
    shared: list[tuple[int, ...]] = []
    viewers: list[int] = []
    for (start, end), found in seen.items():
        shared.append((start, end - start, len(viewers), len(viewers) + len(found)))
        viewers += found
    return Layout(
        documents=_table(rows),
        ranges=_table(ranges),
        shared=_table(shared),
        viewers=_table(viewers),
        slots=slots,
        reach=max([most_keys, *(row[1] + row[2] for row in rows)]),
        most_keys=most_keys,
        is_causal=is_causal,
        adds=any(document.is_across for document in documents),
    )


def _table(rows: Sequence[tuple[int, ...]] | Sequence[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32)
