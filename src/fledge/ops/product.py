"""Matrix products in half precision, on CPUs without instructions for them too.

torch computes a half-precision product with oneDNN where the CPU can (from AVX-512 on). Elsewhere it takes loops that
are up to hundreds of times slower than a float32 product (bench/log.md). There the factors are widened to float32,
which is exact, a tile at a time, and the sum is rounded once: what oneDNN gives, within that rounding.

Shapes: a [N,K], b [K,M], or batches of them.
"""

from functools import cache
from threading import local

import torch

TILE = 1 << 20
"""Values of `b` that are widened at once: 4 MB, which a cache holds. 1 to 16 MB are equally fast within a tenth."""
_HALF = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
_MEMORY = local()


@cache
def must_widen(dtype: torch.dtype, device_type: str) -> bool:
    """Whether products of this number format have no fast kernel here."""
    if device_type != "cpu" or dtype not in _HALF:
        return False
    supported = getattr(torch.ops.mkldnn, _HALF[dtype], None)
    return supported is not None and not supported()


def mm(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
    """a b, with `add` [N,M] or [M] where given, rounded once, into `out` [N,M]. `add` may be `out` itself."""
    if must_widen(a.dtype, a.device.type):
        return widened_mm(a, b, out=out, add=add)
    return reference_mm(a, b, out=out, add=add)


def over_rows(x: torch.Tensor, b: torch.Tensor, *, add: torch.Tensor | None = None) -> torch.Tensor:
    """x b for x [..,K] and b [K,M], with `add` [M] where given: [..,M]."""
    rows = x.reshape(-1, x.shape[-1])
    return mm(rows, b, out=x.new_empty(rows.shape[0], b.shape[1]), add=add).view(*x.shape[:-1], b.shape[1])


def reference_mm(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
    """The same by torch's own product."""
    return torch.mm(a, b, out=out) if add is None else torch.addmm(add, a, b, out=out)


def widened_mm(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
    """The same by float32 products, `b` cut across its rows as they lie in memory."""
    is_cut_inside = b.stride(1) <= b.stride(0)
    return (_cut_inside if is_cut_inside else _cut_across)(a, b, out=out, add=add)


def _cut_across(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
    """Some columns of the result after the other."""
    wide, width = _wide("a", a), max(1, TILE // b.shape[0])
    for start in range(0, b.shape[1], width):
        part = slice(start, min(start + width, b.shape[1]))
        result = _take("result", a.shape[0], part.stop - start)
        torch.mm(wide, _wide("b", b[:, part].t()).t(), out=result)
        if add is not None:
            result += add[..., part]
        out[:, part].copy_(result)
    return out


def _cut_inside(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
    """The whole result as a sum over some rows of `b` after the other."""
    result, height = _take("result", a.shape[0], b.shape[1]), max(1, TILE // b.shape[1])
    if add is None:
        result.zero_()
    else:
        result.copy_(add)
    for start in range(0, b.shape[0], height):
        part = slice(start, start + height)
        result.addmm_(_wide("a", a[:, part]), _wide("b", b[part]))
    return out.copy_(result)


def bmm(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """a b of each pair of a batch, rounded once, into `out`."""
    if not must_widen(a.dtype, a.device.type):
        return torch.bmm(a, b, out=out)
    result = _take("result", *out.shape)
    torch.bmm(_wide("a", a), _wide("b", b), out=result)
    return out.copy_(result)


def _wide(name: str, x: torch.Tensor) -> torch.Tensor:
    """x in float32, laid out as it is, in memory that is used again."""
    if x.dim() == 2 and x.stride(0) < x.stride(1):
        return _take(name, *x.t().shape).copy_(x.t()).t()
    if x.dim() == 3 and x.stride(1) < x.stride(2):
        return _take(name, *x.mT.shape).copy_(x.mT).mT
    return _take(name, *x.shape).copy_(x)


def _take(name: str, *shape: int) -> torch.Tensor:
    """float32 memory of this thread's, its content undefined, given up when the same name is taken again."""
    held: dict[str, torch.Tensor] = _MEMORY.__dict__
    count = torch.Size(shape).numel()
    if name not in held or held[name].numel() < count:
        held[name] = torch.empty(count)
    return held[name][:count].view(shape)
