"""Runs a body over one micro-batch: one node of the graph, whose backward pass is written by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F

from fledge.engine.block import Flow, Keep, Saved, backward, finish, forward, restored, slots_of
from fledge.engine.parts import Block, Body, adapters, linears
from fledge.ops.attention import Document, plan_attention
from fledge.ops.buffers import Buffers
from fledge.ops.cross_entropy import head_cross_entropy, sum_cross_entropy
from fledge.ops.grain import GRAIN, rounded
from fledge.ops.norm import add_norm_gradient, normalise


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """One micro-batch as the engine takes it; T positions, N supervised tokens."""

    input_ids: torch.Tensor
    """[T] int64"""
    position_ids: torch.Tensor
    """[T] int64"""
    documents: tuple[Document, ...]
    sources: torch.Tensor
    """[N] int64, rising: the position that predicts each supervised token"""
    targets: torch.Tensor
    """[N] int64: the token that must be predicted"""
    are_sources_unique: bool
    """False where a shared position predicts different tokens in different rows."""


@dataclass(slots=True, eq=False)
class Engine:
    """A body with the memory it works in. One backward pass must follow each forward pass before the next."""

    body: Body
    buffers: Buffers
    keeps: tuple[Keep, ...]
    """What each block saves."""
    grain: int = GRAIN
    """Numbers of positions are rounded up to a multiple of it."""
    turn: int = field(default=0)
    """Counts forward passes, so that a stale backward pass is refused."""

    def loss(self, batch: Packed) -> torch.Tensor:
        """The sum of token losses over the supervised tokens, float32, differentiable in what is trained."""
        hidden, which = self.states(batch)
        if which is not None:
            hidden = hidden.index_select(0, which)
        if self.body.head is None:
            return sum_cross_entropy(self.body.logits(hidden), batch.targets)
        return head_cross_entropy(hidden, batch.targets, head=self.body.head, buffers=self.buffers)

    def states(self, batch: Packed) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Last hidden states of the positions that something is predicted from, each once, and for each supervised
        token which of them is its own; None where they are one to one.
        """
        needed, which = (
            (batch.sources, None)
            if batch.are_sources_unique
            else torch.unique_consecutive(batch.sources, return_inverse=True)
        )
        padded = _repeated_last(needed, self.grain)
        return self.hidden(_whole_grains(batch, self.grain), padded)[: needed.shape[0]], which

    def hidden(self, batch: Packed, needed: torch.Tensor) -> torch.Tensor:
        """Last normalised hidden states [N,H] of the positions `needed` [N]."""
        body = self.body
        x = body.embed(batch.input_ids[None], position_ids=batch.position_ids[None])[0]
        turns = None
        if body.rotary is not None:
            with torch.no_grad():  # asked in float32: in the hidden states' own format cos and sin would be rounded
                cos, sin = body.rotary(x.new_empty(0, dtype=torch.float32), batch.position_ids[None])
            turns = cos[0], sin[0]
        heads = max(block.attention.shape.kv_heads * block.attention.shape.groups for block in body.blocks)
        flow = Flow(plan_attention(batch.documents, heads=heads), turns, self.buffers, x.dtype)
        trained = [p for block in body.blocks for p in adapters(block)]
        hidden: torch.Tensor = _Blocks.apply(x, self, flow, needed, torch.is_grad_enabled(), *trained)
        return hidden


def _whole_grains(batch: Packed, grain: int) -> Packed:
    """The batch with positions of a document that nothing looks at, so that their number is a round one."""
    count = batch.input_ids.shape[0]
    extra = rounded(count, grain) - count
    if not extra:
        return batch
    return replace(
        batch,
        input_ids=F.pad(batch.input_ids, (0, extra)),
        position_ids=F.pad(batch.position_ids, (0, extra)),
        documents=(*batch.documents, Document(count, count + extra)),
    )


def _repeated_last(needed: torch.Tensor, grain: int) -> torch.Tensor:
    """The positions, the last one repeated until their number is a round one; what is repeated gets no gradient."""
    extra = rounded(needed.shape[0], grain) - needed.shape[0]
    return torch.cat([needed, needed[-1:].expand(extra)]) if extra else needed


class _Blocks(torch.autograd.Function):
    """All blocks and the last norm."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, engine: Engine, flow: Flow, needed: torch.Tensor, is_training: bool, *_: torch.Tensor
    ) -> torch.Tensor:
        engine.turn += 1
        lowest = _lowest(engine.body.blocks, is_input_trained=ctx.needs_input_grad[0]) if is_training else None
        last, saved = _all_forward(engine, x, flow, needed, lowest=lowest)
        ctx.engine, ctx.flow, ctx.needed, ctx.turn = engine, flow, needed, engine.turn
        ctx.last, ctx.saved = last, saved
        return normalise(last, engine.body.norm, out=torch.empty_like(last), buffers=flow.buffers)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[Any, ...]:
        engine: Engine = ctx.engine
        assert ctx.turn == engine.turn, "another forward pass has overwritten what this backward pass needs"
        flow: Flow = ctx.flow
        dy = flow.keep("dlast", *ctx.last.shape).zero_()
        add_norm_gradient(dy, given[0], x=ctx.last, norm=engine.body.norm, buffers=flow.buffers)
        if ctx.saved[-1].rows is None:
            positions = ctx.saved[-1].x.shape[0]
            dy = flow.keep("dx", positions, dy.shape[1]).zero_().index_add_(0, ctx.needed, dy)
        is_input_trained = ctx.needs_input_grad[0]
        gradients = _all_backward(engine, dy, flow, ctx.saved, is_input_trained=is_input_trained)
        dx = flow.keep("dx", *ctx.saved[0].x.shape).clone() if is_input_trained else None
        ctx.saved = ctx.last = None
        return (dx, None, None, None, None, *gradients)


def _lowest(blocks: Sequence[Block], *, is_input_trained: bool) -> int:
    """The first block in which or below which something is trained; below it nothing is saved."""
    if is_input_trained:
        return 0
    return next((number for number, block in enumerate(blocks) if adapters(block)), len(blocks))


def _all_forward(
    engine: Engine, x: torch.Tensor, flow: Flow, needed: torch.Tensor, *, lowest: int | None
) -> tuple[torch.Tensor, list[Saved]]:
    """The last block's output [N,H] for the positions needed, and what each block from `lowest` on saves."""
    blocks, saved = engine.body.blocks, []
    for number, block in enumerate(blocks):
        is_kept = lowest is not None and number >= lowest
        slots = slots_of(number, engine.keeps[number] if is_kept else Keep.INPUT)
        rows = needed if number == len(blocks) - 1 and _can_skip(block) else None
        done = forward(block, x, flow=flow, slots=slots, rows=rows)
        x = flow.keep(f"{number}.y" if is_kept else f"again.y{number % 2}", *done.middle.shape)
        done = finish(block, done, flow=flow, slots=slots, out=x)
        if is_kept:
            saved.append(done)
    return x if rows is not None else x.index_select(0, needed), saved


def _can_skip(block: Block) -> bool:
    """Whether positions may be left out after attention: dropout's masks are drawn for all of a row's."""
    return all(layer.lora is None or layer.lora.drop is None for layer in linears(block))


def _all_backward(
    engine: Engine, dy: torch.Tensor, flow: Flow, saved: Sequence[Saved], *, is_input_trained: bool
) -> list[torch.Tensor]:
    """The gradients of all adapters, first block first; leaves that of the blocks' input in buffer `dx`."""
    blocks = engine.body.blocks
    lowest = len(blocks) - len(saved)
    found: list[list[torch.Tensor]] = []
    for number in range(len(blocks) - 1, lowest - 1, -1):
        block = blocks[number]
        is_first = number == lowest and not is_input_trained
        whole = restored(block, saved[number - lowest], flow=flow, keep=engine.keeps[number])
        found.append(backward(block, dy, saved=whole, flow=flow, is_first=is_first))
        dy = flow.keep("dx", *whole.x.shape)
    return [gradient for of_block in reversed(found) for gradient in of_block]
