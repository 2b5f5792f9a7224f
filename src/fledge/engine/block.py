"""One block forward and backward, by hand: what is saved, what is computed again, and where each result lies.

Shapes: T packed positions, N <= T of them after attention (the last block needs only some), H features, F inner ones;
P positions of a trunk (trunk.py) that stand before them in attention, none where there is none.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import torch

from fledge.engine.cross import Crossed, cross_backward, cross_forward
from fledge.engine.flow import Flow, Slots
from fledge.engine.parts import Block, Mlp
from fledge.engine.trunk import Roots
from fledge.ops.activation import activate, activation_gradient
from fledge.ops.attention import attend, attend_gradient
from fledge.ops.lora_linear import linear, linear_gradients, linears
from fledge.ops.norm import add_norm_gradient, normalise
from fledge.ops.rotary import rotate

Gradients = list[torch.Tensor]
"""Of A and B of a block's adapters, in the order of parts.adapters, float32."""


class Keep(IntEnum):
    """What a block saves for its backward pass; the less, the more is computed again."""

    ALL = 0
    """Its input, projections, middle and inner features: nothing is computed again but norms and activations."""
    MIDDLE = 1
    """All but the inner features: one or two products are computed again."""
    INPUT = 2
    """Its input alone: the whole block but its last product is computed again."""


AGAIN = Slots("again", "again")


def slots_of(number: int, keep: Keep) -> Slots:
    """The slots of block `number`."""
    outer = AGAIN.outer if keep == Keep.INPUT else str(number)
    return Slots(outer, str(number) if keep == Keep.ALL else AGAIN.inner)


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What a block's backward pass starts from. All but `x`, `mixed`, `sums` and the projections are [N,...]."""

    x: torch.Tensor
    """[T,H]"""
    rows: torch.Tensor | None
    """[N] positions that are needed after attention; None for all."""
    projected: tuple[torch.Tensor, ...]
    """[P+T,..]"""
    mixed: torch.Tensor
    """[P+T,H'] what attention gives"""
    sums: torch.Tensor | None
    """[heads,P+T] what else its gradient needs of it, where fused kernels compute it"""
    attended: torch.Tensor | None
    """What the output projection gives, where a norm follows it."""
    middle: torch.Tensor
    """[N,H] x with what attention adds: what the MLP starts from"""
    inner: tuple[torch.Tensor, ...]
    """(gate, up) or (up,), [N,F] before the activation"""
    lowered: torch.Tensor | None
    """What the MLP gives, where a norm follows it."""
    crossed: Crossed | None
    """What attention to an encoder saves."""
    roots: Roots | None

    @property
    def before(self) -> int:
        """P"""
        return 0 if self.roots is None else self.roots.positions


def forward(
    block: Block,
    x: torch.Tensor,
    *,
    flow: Flow,
    slots: Slots,
    rows: torch.Tensor | None = None,
    roots: Roots | None = None,
) -> Saved:
    """The block up to its activation, for x [T,H]."""
    slot, attention = slots.outer, block.attention
    before = 0 if roots is None else roots.positions
    projected = _projected(block, x, flow, slot=slot, before=before)
    q, k, v = attention.split(projected)
    if roots is not None:
        roots.put_before((q, k, v))
    sums = flow.sums(f"{slot}.sums", like=projected[0], shape=attention.shape)
    is_needed = attention.out.lora is not None or sums is not None
    mixed = flow.keep(f"{slot}.mixed" if is_needed else "mixed", q.shape[0], attention.out.weight.shape[1])
    attend((q, k, v), shape=attention.shape, plan=flow.plan, buffers=flow.buffers, out=mixed.view(q.shape), sums=sums)
    attended, middle = _after_attention(block, _chosen(x, rows), _chosen(mixed[before:], rows), flow, slot=slot)
    crossed = None
    if block.cross is not None:
        middle, crossed = cross_forward(block.cross, middle, flow=flow, slot=slot)
    saved = Saved(x, rows, projected, mixed, sums, attended, middle, (), None, crossed, roots)
    return replace(saved, inner=_inner_features(block, saved, flow, slot=slots.inner))


def _projected(block: Block, x: torch.Tensor, flow: Flow, *, slot: str, before: int) -> tuple[torch.Tensor, ...]:
    """[P+T,..] what attention takes: room for the trunk's, and projections of x [T,H], rotated where positions are."""
    attention = block.attention
    normal = normalise(x, block.before_attention, out=flow.take("normal", *x.shape), buffers=flow.buffers)
    whole = tuple(
        flow.keep(f"{slot}.projected{number}", before + x.shape[0], layer.weight.shape[0])
        for number, layer in enumerate(attention.projections)
    )
    linears(normal, attention.projections, outs=[part[before:] for part in whole])
    if attention.is_rotary:
        assert flow.turns is not None
        for part in attention.split(whole)[:2]:
            rotate(part[before:], flow.turns, buffers=flow.buffers)
    return whole


def _after_attention(
    block: Block, x: torch.Tensor, mixed: torch.Tensor, flow: Flow, *, slot: str
) -> tuple[torch.Tensor | None, torch.Tensor]:
    middle = flow.keep(f"{slot}.middle", *x.shape)
    if block.after_attention is None:
        return None, linear(mixed, block.attention.out, out=middle, residual=x)
    attended = linear(mixed, block.attention.out, out=flow.keep(f"{slot}.attended", *x.shape))
    return attended, normalise(attended, block.after_attention, out=middle, buffers=flow.buffers).add_(x)


def _inner_features(block: Block, saved: Saved, flow: Flow, *, slot: str) -> tuple[torch.Tensor, ...]:
    """(gate, up) or (up,), from the middle or, in a parallel block, from the input."""
    normal = _mlp_input(block, saved, flow)
    layers = [layer for layer in (block.mlp.gate, block.mlp.up) if layer is not None]
    outs = [
        flow.keep(f"{slot}.inner{number}", normal.shape[0], layer.weight.shape[0])
        for number, layer in enumerate(layers)
    ]
    return linears(normal, layers, outs=outs)


def _mlp_input(block: Block, saved: Saved, flow: Flow) -> torch.Tensor:
    """[N,H] what the MLP takes."""
    norm = block.before_mlp or block.before_attention
    source = _chosen(saved.x, saved.rows) if block.is_parallel else saved.middle
    return normalise(source, norm, out=flow.take("normal", *source.shape), buffers=flow.buffers)


def finish(block: Block, saved: Saved, *, flow: Flow, slots: Slots, out: torch.Tensor) -> Saved:
    """The rest of the block into `out` [N,H]; returns what is saved with what this adds to it."""
    if block.after_mlp is None:
        linear(_activated(block.mlp, saved.inner, flow), block.mlp.down, out=out, residual=saved.middle)
        return saved
    lowered = _lowered(block.mlp, saved, flow, slot=slots.outer)
    normalise(lowered, block.after_mlp, out=out, buffers=flow.buffers).add_(saved.middle)
    return replace(saved, lowered=lowered)


def _lowered(mlp: Mlp, saved: Saved, flow: Flow, *, slot: str) -> torch.Tensor:
    """[N,H] what the MLP gives, before the norm that follows it."""
    return linear(_activated(mlp, saved.inner, flow), mlp.down, out=flow.keep(f"{slot}.lowered", *saved.middle.shape))


def restored(block: Block, saved: Saved, *, flow: Flow, keep: Keep) -> Saved:
    """What was not kept, computed again."""
    if keep == Keep.ALL:
        return saved
    if keep == Keep.MIDDLE:
        return replace(saved, inner=_inner_features(block, saved, flow, slot=AGAIN.inner))
    again = forward(block, saved.x, flow=flow, slots=AGAIN, rows=saved.rows, roots=saved.roots)
    if block.after_mlp is None:
        return again
    return replace(again, lowered=_lowered(block.mlp, again, flow, slot=AGAIN.outer))


def _activated(mlp: Mlp, inner: tuple[torch.Tensor, ...], flow: Flow) -> torch.Tensor:
    """[N,F] what the last product takes."""
    up = None if mlp.gate is None else inner[1]
    return activate(mlp.activation, inner[0], up=up, out=flow.take("active", *inner[0].shape))


def backward(
    block: Block,
    dy: torch.Tensor,
    *,
    saved: Saved,
    flow: Flow,
    is_first: bool,
    encoded_gradient: torch.Tensor | None = None,
    grown: Roots | None = None,
) -> Gradients:
    """The gradients of the block's adapters for dy [N,H]; dy becomes the gradient of what attention gave, and
    buffer `dx` [T,H] the gradient of its input, unless `is_first`, below which nothing is trained. What an encoder gave
    gets its gradient added into `encoded_gradient`. Of the trunk itself, `grown` is what micro-batches sent back.
    """
    normal_gradient, of_mlp = _mlp_gradient(block, dy, saved, flow)
    if not block.is_parallel:
        assert block.before_mlp is not None
        add_norm_gradient(dy, normal_gradient, x=saved.middle, norm=block.before_mlp, buffers=flow.buffers)
    across: Gradients = []
    if block.cross is not None and saved.crossed is not None:
        across = cross_backward(block.cross, dy, saved=saved.crossed, flow=flow, encoded_gradient=encoded_gradient)
    of_attention = _attention_gradient(block, dy, saved, flow, shared=normal_gradient, is_first=is_first, grown=grown)
    return of_attention + across + of_mlp


def _mlp_gradient(block: Block, dy: torch.Tensor, saved: Saved, flow: Flow) -> tuple[torch.Tensor, Gradients]:
    """The gradient of the MLP's normalised input [N,H], and of its adapters."""
    mlp, shape = block.mlp, saved.inner[0].shape
    dlowered = dy
    if block.after_mlp is not None:
        assert saved.lowered is not None
        zeros = flow.take("dlowered", *dy.shape).zero_()
        dlowered = add_norm_gradient(zeros, dy, x=saved.lowered, norm=block.after_mlp, buffers=flow.buffers)
    inside = flow.take("dinner", *shape)
    active = _activated(mlp, saved.inner, flow) if mlp.down.lora else None
    of_down = linear_gradients([dlowered], [mlp.down], x=active, dx=inside)
    has_adapter = mlp.up.lora is not None or (mlp.gate is not None and mlp.gate.lora is not None)
    normal = _mlp_input(block, saved, flow) if has_adapter else None
    dnormal = flow.take("dnormal", dy.shape[0], mlp.up.weight.shape[1])
    if mlp.gate is None:
        activation_gradient(mlp.activation, inside, x=saved.inner[0], up=None, dup=None)
        return dnormal, linear_gradients([inside], [mlp.up], x=normal, dx=dnormal) + of_down
    of_up = flow.take("active", *shape)
    activation_gradient(mlp.activation, inside, x=saved.inner[0], up=saved.inner[1], dup=of_up)
    return dnormal, linear_gradients([inside, of_up], [mlp.gate, mlp.up], x=normal, dx=dnormal) + of_down


def _attention_gradient(
    block: Block,
    dy: torch.Tensor,
    saved: Saved,
    flow: Flow,
    *,
    shared: torch.Tensor,
    is_first: bool,
    grown: Roots | None,
) -> Gradients:
    """Leaves the gradient of the block's input in buffer `dx`."""
    attention, before = block.attention, saved.before
    dattended = dy
    if block.after_attention is not None:
        assert saved.attended is not None
        zeros = flow.take("dlowered", *dy.shape).zero_()
        dattended = add_norm_gradient(zeros, dy, x=saved.attended, norm=block.after_attention, buffers=flow.buffers)
    dmixed = flow.take("dmixed", before + dy.shape[0], saved.mixed.shape[1])
    mixed = _chosen(saved.mixed[before:], saved.rows) if attention.out.lora else None
    of_out = linear_gradients([dattended], [attention.out], x=mixed, dx=dmixed[before:])
    dprojected = _projection_gradients(block, saved, flow, dmixed=_spread_beyond(dmixed, saved), grown=grown)
    normal = None
    if any(layer.lora for layer in attention.projections):
        normal = normalise(
            saved.x, block.before_attention, out=flow.take("normal", *saved.x.shape), buffers=flow.buffers
        )
    dnormal = None if is_first else flow.take("dprojection", *saved.x.shape)
    of_projections = linear_gradients(dprojected, attention.projections, x=normal, dx=dnormal)
    if dnormal is not None:
        _input_gradient(block, dy, saved, flow, dnormal=dnormal, shared=shared)
    return of_projections + of_out


def _projection_gradients(
    block: Block, saved: Saved, flow: Flow, *, dmixed: torch.Tensor, grown: Roots | None
) -> tuple[torch.Tensor, ...]:
    """The gradients of what the projections gave, in their layout, for dmixed [P+T,H']."""
    attention = block.attention
    given = tuple(flow.take(f"dprojected{number}", *part.shape) for number, part in enumerate(saved.projected))
    dq, dk, dv = attention.split(given)
    if saved.roots is not None:
        saved.roots.make_room((dq, dk, dv))
    attend_gradient(
        dmixed.view(dq.shape),
        attention.split(saved.projected),
        shape=attention.shape,
        plan=flow.plan,
        buffers=flow.buffers,
        into=(dq, dk, dv),
        kept=None if saved.sums is None else (saved.mixed.view(dq.shape), saved.sums),
    )
    if saved.roots is not None:
        saved.roots.take_back((dq, dk, dv))
    if grown is not None:
        grown.hand_on((dq, dk, dv))
    if attention.is_rotary:
        assert flow.turns is not None
        for part in (dq, dk):
            rotate(part[saved.before :], flow.turns, buffers=flow.buffers, back=True)
    return tuple(part[saved.before :] for part in given)


def _input_gradient(
    block: Block, dy: torch.Tensor, saved: Saved, flow: Flow, *, dnormal: torch.Tensor, shared: torch.Tensor
) -> None:
    """dx = what passes by, + the gradient through the attention's norm, + in a parallel block the MLP's."""
    dx = flow.keep("dx", *saved.x.shape)
    passing = _spread(dy, saved.rows, saved.x.shape[0])
    if passing.data_ptr() != dx.data_ptr():
        dx.copy_(passing)
    if block.is_parallel:
        whole = _spread(shared, saved.rows, saved.x.shape[0])
        if block.before_mlp is None:
            dnormal.add_(whole)
        else:
            add_norm_gradient(dx, whole, x=saved.x, norm=block.before_mlp, buffers=flow.buffers)
    add_norm_gradient(dx, dnormal, x=saved.x, norm=block.before_attention, buffers=flow.buffers)


def _chosen(x: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return x if rows is None else x.index_select(0, rows)


def _spread_beyond(x: torch.Tensor, saved: Saved) -> torch.Tensor:
    """[P+N,..] to [P+T,..]; nobody reads the first P."""
    if saved.rows is None:
        return x
    return _spread(x[saved.before :], saved.rows + saved.before, saved.before + saved.x.shape[0])


def _spread(x: torch.Tensor, rows: torch.Tensor | None, positions: int) -> torch.Tensor:
    """[N,..] added up among [T,..], zeros elsewhere."""
    return x if rows is None else x.new_zeros(positions, *x.shape[1:]).index_add_(0, rows, x)
