"""A row of logits to its loss, and in its own memory to its gradient: read twice, written once, whatever its length.

Shapes: C positions, V vocabulary.
"""

import torch
import triton
import triton.language as tl

BLOCK = 4096


@triton.jit
def _bend(z, cap, CAPPED: tl.constexpr):
    """cap * tanh(z / cap) and the tanh, where there is a cap."""
    bent = z
    if CAPPED:
        bent = 2.0 * tl.sigmoid(2.0 * z / cap) - 1.0
        z = cap * bent
    return z, bent


@triton.jit
def _rows(
    logits, labels, losses, step, cap, gain, V: tl.constexpr, CAPPED: tl.constexpr, LAST: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    row = logits + tl.program_id(0).to(tl.int64) * step
    label = tl.load(labels + tl.program_id(0))
    # first of all, for another warp may write over it below
    chosen, _ = _bend(tl.load(row + label).to(tl.float32), cap, CAPPED)
    offsets = tl.arange(0, SIZE)
    top = tl.full((SIZE,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((SIZE,), dtype=tl.float32)
    for start in range(0, V, SIZE):
        at = start + offsets
        z, bent = _bend(tl.load(row + at, mask=at < V, other=0.0).to(tl.float32), cap, CAPPED)
        z = tl.where(at < V, z, float("-inf"))
        new = tl.maximum(top, z)
        base = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(top - base) + tl.exp(z - base)
        top = new
    largest = tl.max(top, 0)
    sums = tl.sum(total * tl.exp(top - largest), 0)
    tl.store(losses + tl.program_id(0), largest - chosen + tl.log(sums))
    if not LAST:
        for start in range(0, V, SIZE):
            at = start + offsets
            z, bent = _bend(tl.load(row + at, mask=at < V, other=0.0).to(tl.float32), cap, CAPPED)
            given = tl.exp(z - largest) / sums - tl.where(at == label, 1.0, 0.0)
            if CAPPED:
                given *= 1.0 - bent * bent
            tl.store(row + at, (given * gain).to(logits.dtype.element_ty), mask=at < V)


def softmax_in_place(
    logits: torch.Tensor, labels: torch.Tensor, *, softcap: float | None, gain: float, is_last: bool
) -> torch.Tensor:
    """The loss of these logits [C,V], float64; they become their own gradient times `gain` unless `is_last`."""
    losses = torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)
    _rows[logits.shape[0],](
        logits, labels, losses, logits.stride(0), softcap or 1.0, gain, V=logits.shape[1],
        CAPPED=softcap is not None, LAST=is_last, SIZE=BLOCK, num_warps=8,
    )  # fmt: skip
    return losses.sum(dtype=torch.float64)
