"""Runs a body over one micro-batch: one node of the graph for each block, whose backward pass is written by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fledge.engine.block import Keep, Saved, backward, finish, forward, restored, slots_of
from fledge.engine.flow import Across, Flow
from fledge.engine.keeping import Keeps
from fledge.engine.packed import Packed, Side, parted, whole_grains
from fledge.engine.parts import Block, Body, Encoder, adapters, linears
from fledge.engine.trunk import NO_TRUNK, OnTrunk, Roots, Trunk, roots_of
from fledge.ops.buffers import Buffers
from fledge.ops.cross_entropy import head_cross_entropy, sum_cross_entropy
from fledge.ops.grain import GRAIN, rounded
from fledge.ops.norm import Norm, add_norm_gradient, normalise
from fledge.ops.plan import Document, plan_attention


@dataclass(slots=True, eq=False)
class Engine:
    """A body with the memory it works in. One backward pass must follow each forward pass before the next; those of
    one trunk follow each other from the one that opens it to the one that closes it.
    """

    body: Body
    buffers: Buffers
    keeps: Keeps
    """What each block saves of a micro-batch, by its number of positions."""
    grain: int = GRAIN
    """Numbers of positions are rounded up to a multiple of it."""
    turn: int = field(default=0)
    """Counts forward passes, so that a stale backward pass is refused."""
    trunk: Trunk | None = None
    """Of the step under way."""
    lasting: Buffers | None = None
    """The memory of trunks."""

    def loss(self, batch: Packed) -> torch.Tensor:
        """The sum of token losses over the supervised tokens, float32, differentiable in what is trained."""
        hidden = self.states(batch)
        if batch.which is not None:
            hidden = hidden.index_select(0, batch.which)
        if self.body.head is None:
            return sum_cross_entropy(self.body.logits(hidden), batch.targets)
        return head_cross_entropy(hidden, batch.targets, head=self.body.head, buffers=self.buffers)

    def states(self, batch: Packed) -> torch.Tensor:
        """[M,H] last hidden states of the positions that something is predicted from."""
        encoder = None if batch.encoder is None else whole_grains(batch.encoder, self.grain)
        padded = _repeated_last(batch.sources - batch.trunk, self.grain)
        if not batch.trunk:
            states = self.hidden(whole_grains(batch.side, self.grain), padded, encoder=encoder)
        else:
            root, side = parted(batch.side, batch.trunk, grain=self.grain)
            if batch.opens:
                self._open(root)
            assert self.trunk is not None, "the micro-batch that opens the trunk comes first"
            states = self.hidden(side, padded, trunk=OnTrunk(self.trunk, closes=batch.closes))
            if batch.closes:
                self.trunk.out = None  # or it would hold the graph that holds it
        return states[: batch.sources.shape[0]]

    def _open(self, side: Side) -> None:
        """The trunk of a step, computed."""
        if self.lasting is None:
            self.lasting = Buffers(self.buffers.device)
        if self.trunk is not None:
            self.trunk.out = None  # of a step that broke off
        self.trunk = None
        self.lasting.begin()
        x = self.body.embed(side.input_ids[None], position_ids=side.position_ids[None])[0]
        flow = replace(self._flow(side, x, across=None), kept=self.lasting)
        self.trunk = Trunk(side.input_ids.shape[0])
        keeps = (Keep.INPUT,) * len(self.body.blocks)
        out = self._blocks(x, flow, keeps, first=0, trunk=OnTrunk(grown=self.trunk))
        self.trunk.out = out.clone()  # a view into memory that is written to until it is used

    def hidden(
        self,
        side: Side,
        needed: torch.Tensor,
        *,
        encoder: Side | None = None,
        trunk: OnTrunk = NO_TRUNK,
    ) -> torch.Tensor:
        """Last normalised hidden states [N,H] of the positions `needed` [N], which count from the trunk's end."""
        body = self.body
        self.turn += 1
        self.buffers.begin()
        across, sources = None, 0
        if body.encoder is not None:
            assert encoder is not None, "an encoder-decoder needs what its encoder reads"
            across, sources = self._encode(body.encoder, encoder, side), encoder.input_ids.shape[0]
        keeps = self.keeps(side.input_ids.shape[0] + trunk.positions, sources)
        x = body.embed(side.input_ids[None], position_ids=side.position_ids[None])[0]
        flow = self._flow(side, x, across=across)
        below = len(keeps) - len(body.blocks)
        skips = _can_skip(body.blocks[-1])
        x = self._blocks(x, flow, keeps, first=below, needed=needed if skips else None, trunk=trunk)
        if not skips:
            x = x.index_select(0, needed)
        hidden: torch.Tensor = _Norm.apply(x, body.norm, flow)
        return hidden

    def _encode(self, encoder: Encoder, side: Side, decoder: Side) -> Across:
        """What the decoder attends to; its documents beyond the encoder's are only there to make their number round."""
        x = encoder.embed(side.input_ids[None], position_ids=side.position_ids[None])[0]
        heads = _heads(encoder.blocks)
        flow = Flow(plan_attention(side.documents, heads=heads, is_causal=False), None, self.buffers, x.dtype)
        keeps = self.keeps(decoder.input_ids.shape[0], side.input_ids.shape[0])
        x = self._blocks(x, flow, keeps[: len(encoder.blocks)], first=0)
        encoded: torch.Tensor = _Norm.apply(x, encoder.norm, flow)
        places = [(document.start, document.end) for document in side.documents]
        documents = [
            Document(document.start, document.end, (places[min(number, len(places) - 1)],), is_across=True)
            for number, document in enumerate(decoder.documents)
        ]
        return Across(encoded, plan_attention(documents, heads=heads, is_causal=False))

    def _blocks(
        self,
        x: torch.Tensor,
        flow: Flow,
        keeps: tuple[Keep, ...],
        *,
        first: int,
        needed: torch.Tensor | None = None,
        trunk: OnTrunk = NO_TRUNK,
    ) -> torch.Tensor:
        """x [T,H] through the blocks from number `first` on, as far as `keeps` goes; after the last one's attention
        only the positions `needed` [N] are left, where given.
        """
        blocks = self.body.all_blocks[first : len(keeps)]
        encoded = None if flow.across is None else flow.across.encoded
        closing = trunk.closing
        for number, block in enumerate(blocks, first):
            trained = adapters(block)
            is_trained = x.requires_grad or bool(trained) or (encoded is not None and encoded.requires_grad)
            rows = needed if number == len(keeps) - 1 else None
            is_kept = torch.is_grad_enabled() and is_trained
            call = _Call(self, flow, self.turn, number, keeps[number], is_kept, rows, trunk, is_lowest=number == first)
            x = _Block.apply(x, encoded, closing if is_kept else None, call, *trained)
            closing = None if is_kept else closing
        return x

    def _flow(self, side: Side, x: torch.Tensor, *, across: Across | None) -> Flow:
        """What the blocks share, for hidden states like x [T,H]."""
        turns = None
        if self.body.rotary is not None:
            with torch.no_grad():  # asked in float32: in the hidden states' own format cos and sin would be rounded
                cos, sin = self.body.rotary(x.new_empty(0, dtype=torch.float32), side.position_ids[None])
            turns = cos[0], sin[0]
        plan = plan_attention(side.documents, heads=_heads(self.body.blocks))
        return Flow(plan, turns, self.buffers, x.dtype, across)


def _heads(blocks: Sequence[Block]) -> int:
    return max(block.attention.shape.kv_heads * block.attention.shape.groups for block in blocks)


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
    trunk: OnTrunk
    is_lowest: bool
    """Whether embeddings come below it."""

    @property
    def roots(self) -> Roots | None:
        """What it attends to of the trunk."""
        return None if self.trunk.base is None else self.trunk.base.roots[self.number]

    @property
    def is_current(self) -> bool:
        """Whether what it saved is still there."""
        grown = self.trunk.grown
        return self.turn == self.engine.turn if grown is None else grown is self.engine.trunk

    @property
    def block(self) -> Block:
        return self.engine.body.all_blocks[self.number]

    def encoded_gradient(self) -> torch.Tensor | None:
        """[S,H] float32, where the blocks of a decoder add up the gradient of what they attend to."""
        across = self.flow.across
        if across is None or not across.encoded.requires_grad:
            return None
        shape = across.encoded.shape
        return self.flow.buffers.take_rows("encoded_gradient", *shape, dtype=torch.float32, life="step")


class _Block(torch.autograd.Function):
    """One block. A node of its own, so that its adapters' gradients are added up before the next one's are made; in the
    micro-batch that closes a trunk they wait for the trunk's.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        encoded: torch.Tensor | None,
        closing: torch.Tensor | None,
        call: _Call,
        *_: torch.Tensor,
    ) -> torch.Tensor:
        """`closing` [P,H] is what the trunk gives, where its backward pass comes after this one."""
        flow, grown = call.flow, call.trunk.grown
        slots = slots_of(call.number, call.keep if call.is_kept else Keep.INPUT)
        done = forward(call.block, x, flow=flow, slots=slots, rows=call.rows, roots=call.roots)
        out = flow.keep(f"{call.number}.y" if call.is_kept else f"again.y{call.number % 2}", *done.middle.shape)
        done = finish(call.block, done, flow=flow, slots=slots, out=out)
        if grown is not None:
            qkv = call.block.attention.split(done.projected)
            grown.roots.append(roots_of(call.number, qkv, buffers=flow.memory))
        if call.is_kept:
            ctx.call, ctx.saved, ctx.closing = call, done, None if closing is None else closing.shape
        return out

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        call: _Call = ctx.call
        saved: Saved = ctx.saved
        engine, flow, grown = call.engine, call.flow, call.trunk.grown
        assert call.is_current, "another forward pass has overwritten what this backward pass needs"
        encoded_gradient = call.encoded_gradient()
        if encoded_gradient is not None and call.number == len(engine.body.all_blocks) - 1:
            encoded_gradient.zero_()
        gradients = backward(
            call.block,
            given[0],
            saved=restored(call.block, saved, flow=flow, keep=call.keep),
            flow=flow,
            is_first=not ctx.needs_input_grad[0],
            encoded_gradient=encoded_gradient,
            grown=None if grown is None else grown.roots[call.number],
        )
        ctx.saved = ctx.call = None
        dx = flow.keep("dx", *saved.x.shape) if ctx.needs_input_grad[0] else None
        if dx is not None and call.is_lowest:
            dx = dx.clone()
        whole_gradient = encoded_gradient if call.is_lowest else None
        dencoded = None if whole_gradient is None else whole_gradient.to(flow.dtype)
        dclosing = None if ctx.closing is None else given[0].new_zeros(ctx.closing)
        return (dx, dencoded, dclosing, None, *gradients)


class _Norm(torch.autograd.Function):
    """The norm after the last block, of an encoder too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, norm: Norm, flow: Flow) -> torch.Tensor:
        ctx.x, ctx.norm, ctx.flow = x, norm, flow
        return normalise(x, norm, out=torch.empty_like(x), buffers=flow.buffers)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        flow: Flow = ctx.flow
        dx = flow.keep("dlast", *ctx.x.shape).zero_()
        add_norm_gradient(dx, given[0].contiguous(), x=ctx.x, norm=ctx.norm, buffers=flow.buffers)
        ctx.x = None
        return dx, None, None


def _can_skip(block: Block) -> bool:
    """Whether positions may be left out after attention: a decoder's are all needed, and dropout's masks are drawn for
    all of a row's.
    """
    has_dropout = any(layer.lora is not None and layer.lora.drop is not None for layer in linears(block))
    return block.cross is None and not has_dropout
