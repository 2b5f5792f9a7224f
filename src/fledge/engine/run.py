"""Runs a body over one micro-batch: one node of the graph for each block, whose backward pass is written by hand."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F

from fledge.engine.block import Flow, Keep, Saved, backward, finish, forward, restored, slots_of
from fledge.engine.keeping import Keeps
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
    keeps: Keeps
    """What each block saves of a micro-batch, by its number of positions."""
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
        body, blocks = self.body, self.body.blocks
        self.turn += 1
        self.buffers.begin()
        x = body.embed(batch.input_ids[None], position_ids=batch.position_ids[None])[0]
        flow, keeps = self._flow(batch, x), self.keeps(x.shape[0])
        chosen = None
        for number, (block, keep) in enumerate(zip(blocks, keeps, strict=True)):
            chosen = needed if number == len(blocks) - 1 and _can_skip(block) else None
            trained = adapters(block)
            is_kept = torch.is_grad_enabled() and (x.requires_grad or bool(trained))
            x = _Block.apply(x, _Call(self, flow, self.turn, number, keep, is_kept, chosen), *trained)
        if chosen is None:
            x = x.index_select(0, needed)
        hidden: torch.Tensor = _Norm.apply(x, body, flow)
        return hidden

    def _flow(self, batch: Packed, x: torch.Tensor) -> Flow:
        """What the blocks share, for hidden states like x [T,H]."""
        turns = None
        if self.body.rotary is not None:
            with torch.no_grad():  # asked in float32: in the hidden states' own format cos and sin would be rounded
                cos, sin = self.body.rotary(x.new_empty(0, dtype=torch.float32), batch.position_ids[None])
            turns = cos[0], sin[0]
        heads = max(block.attention.shape.kv_heads * block.attention.shape.groups for block in self.body.blocks)
        return Flow(plan_attention(batch.documents, heads=heads), turns, self.buffers, x.dtype)


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


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One block in one forward pass."""

    engine: Engine
    flow: Flow
    turn: int
    number: int
    keep: Keep
    is_kept: bool
    """Whether something in the block or below it is trained; else nothing is saved."""
    rows: torch.Tensor | None
    """[N] positions that are needed after attention; None for all."""

    @property
    def block(self) -> Block:
        return self.engine.body.blocks[self.number]


class _Block(torch.autograd.Function):
    """One block. A node of its own, so that its adapters' gradients are added up before the next one's are made."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, call: _Call, *_: torch.Tensor) -> torch.Tensor:
        flow, slots = call.flow, slots_of(call.number, call.keep if call.is_kept else Keep.INPUT)
        done = forward(call.block, x, flow=flow, slots=slots, rows=call.rows)
        out = flow.keep(f"{call.number}.y" if call.is_kept else f"again.y{call.number % 2}", *done.middle.shape)
        done = finish(call.block, done, flow=flow, slots=slots, out=out)
        if call.is_kept:
            ctx.call, ctx.saved = call, done
        return out

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        call: _Call = ctx.call
        saved: Saved = ctx.saved
        assert call.turn == call.engine.turn, "another forward pass has overwritten what this backward pass needs"
        whole = restored(call.block, saved, flow=call.flow, keep=call.keep)
        is_first = not ctx.needs_input_grad[0]
        gradients = backward(call.block, given[0], saved=whole, flow=call.flow, is_first=is_first)
        ctx.saved = None
        dx = None if is_first else call.flow.keep("dx", *saved.x.shape)
        return (dx.clone() if dx is not None and call.number == 0 else dx, None, *gradients)


class _Norm(torch.autograd.Function):
    """The last norm."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, body: Body, flow: Flow) -> torch.Tensor:
        ctx.x, ctx.body, ctx.flow = x, body, flow
        return normalise(x, body.norm, out=torch.empty_like(x), buffers=flow.buffers)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        flow: Flow = ctx.flow
        dx = flow.keep("dlast", *ctx.x.shape).zero_()
        add_norm_gradient(dx, given[0], x=ctx.x, norm=ctx.body.norm, buffers=flow.buffers)
        ctx.x = None
        return dx, None, None


def _can_skip(block: Block) -> bool:
    """Whether positions may be left out after attention: dropout's masks are drawn for all of a row's."""
    return all(layer.lora is None or layer.lora.drop is None for layer in linears(block))
