"""The loss of a language model: a sum over supervised tokens, in float32, without the logits of a whole batch.

Shapes: N positions, H features, V vocabulary, C positions of a chunk.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from fledge.ops.buffers import Buffers
from fledge.ops.choice import fused
from fledge.ops.grain import GRAIN, rounded
from fledge.ops.product import mm

CHUNK_BYTES, GPU_CHUNK_BYTES = 96 << 20, 384 << 20
"""Logits held at once, in their own number format: enough rows for a fast product, whatever the vocabulary."""
WIDE_BYTES = 16 << 20
"""Logits held in float32 at once, while their softmax is taken."""
HALF_GAIN = 1024.0
"""float16 cannot hold a probability below 6e-8: its gradients are multiplied by this while they are in float16."""


def sum_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of -log softmax(logits)[label] over labels that are not -100.

    `logits` [N, V] of any float dtype, `labels` [N] int64, shifted already. Returns a float32 scalar.
    The logits are cast to float32 first, as transformers' causal loss does.
    """
    return F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A frozen head: logits = x W^T + b, then cap * tanh(logits / cap) where there is a cap."""

    weight: torch.Tensor
    """[V,H]"""
    bias: torch.Tensor | None = None
    softcap: float | None = None


def head_cross_entropy(hidden: torch.Tensor, labels: torch.Tensor, *, head: Head, buffers: Buffers) -> torch.Tensor:
    """sum_cross_entropy of the head's logits for hidden [N,H], differentiable in hidden; every label is supervised.

    The gradient is computed in the same pass, chunk by chunk, in the memory of the logits. Nothing is computed
    twice; two products a chunk. Neither the logits nor the head are ever held in float32 as a whole.
    """
    loss: torch.Tensor = _HeadLoss.apply(hidden, labels, head, buffers)
    return loss


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, labels: torch.Tensor, head: Head, buffers: Buffers) -> torch.Tensor:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        rows = _chunk_rows(hidden.shape[0], head.weight.shape[0] * hidden.element_size(), most=_most(hidden))
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            total += _chunk(hidden[part], labels[part], head, buffers, None if gradient is None else gradient[part])
        ctx.gradient = gradient
        return total.float()

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        factor = given[0] / (HALF_GAIN if gradient.dtype == torch.float16 else 1.0)
        return (gradient.float() * factor).to(gradient.dtype), None, None, None


def _most(hidden: torch.Tensor) -> int:
    """Bytes of a chunk where these hidden states lie."""
    return GPU_CHUNK_BYTES if hidden.device.type == "cuda" else CHUNK_BYTES


def _chunk_rows(count: int, row_bytes: int, *, most: int) -> int:
    """Rows of a chunk of at most `most` bytes, all chunks alike, for a small last one would cost as much."""
    chunks = max(1, -(-count // (max(1, most // row_bytes // GRAIN) * GRAIN)))
    return rounded(-(-count // chunks))


def _chunk(
    hidden: torch.Tensor, labels: torch.Tensor, head: Head, buffers: Buffers, gradient: torch.Tensor | None
) -> torch.Tensor:
    """The loss of these positions; their hidden states' gradient into `gradient`."""
    room = _most(hidden) // hidden.element_size()
    count, padded = hidden.shape[0], rounded(hidden.shape[0])
    logits = buffers.take("head.logits", padded, head.weight.shape[0], dtype=hidden.dtype, room=room, life="head")
    states = buffers.take(
        "head.states", padded, hidden.shape[1], dtype=hidden.dtype, room=room // head.weight.shape[0], life="head"
    )
    states[:count].copy_(hidden)
    states[count:].zero_()
    mm(states, head.weight.t(), out=logits, add=head.bias)
    total = _losses(logits[:count], labels, head.softcap, buffers, is_last=gradient is None)
    if gradient is not None:
        gradient.copy_(mm(logits, head.weight, out=states)[:count])
    return total


def _losses(
    logits: torch.Tensor, labels: torch.Tensor, softcap: float | None, buffers: Buffers, *, is_last: bool
) -> torch.Tensor:
    """The loss of these logits [C,V], which become their own gradient unless `is_last`."""
    if (kernels := fused("cross_entropy", logits)) is not None:
        gain = HALF_GAIN if logits.dtype == torch.float16 else 1.0
        loss: torch.Tensor = kernels.softmax_in_place(logits, labels, softcap=softcap, gain=gain, is_last=is_last)
        return loss
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    rows = max(1, WIDE_BYTES // (logits.shape[1] * 4))
    for start in range(0, logits.shape[0], rows):
        part = slice(start, start + rows)
        total += _softmax_in_place(logits[part], labels[part], softcap, buffers, is_last=is_last)
    return total


def _softmax_in_place(
    logits: torch.Tensor, labels: torch.Tensor, softcap: float | None, buffers: Buffers, *, is_last: bool
) -> torch.Tensor:
    """`_losses`, all at once.

    log sum exp(z) = max z - log max softmax(z): the largest probability is at least 1/V, so nothing underflows, and
    one softmax gives both the loss and the gradient.
    """
    wide = buffers.take("head.wide", *logits.shape, dtype=torch.float32, life="head")
    if softcap is None:
        wide.copy_(logits)
        bent = None
    else:
        bent = torch.tanh(
            wide.copy_(logits).div_(softcap),
            out=buffers.take("head.tanh", *logits.shape, dtype=wide.dtype, life="head"),
        )
        torch.mul(bent, softcap, out=wide)
    at = labels[:, None]
    chosen, top = wide.gather(1, at), wide.amax(1, keepdim=True)
    if is_last:
        return (wide.logsumexp(1, keepdim=True) - chosen).sum(dtype=torch.float64)
    torch.softmax(wide, 1, out=wide)
    loss = (top - wide.amax(1, keepdim=True).log() - chosen).sum(dtype=torch.float64)
    wide.scatter_add_(1, at, wide.new_full(at.shape, -1.0))
    if bent is not None:
        wide.sub_(bent.square_().mul_(wide))
    if logits.dtype == torch.float16:
        wide.mul_(HALF_GAIN)
    logits.copy_(wide)
    return loss
