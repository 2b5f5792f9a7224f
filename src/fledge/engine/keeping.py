"""What each block saves for its backward pass: all where memory allows, else what costs most to compute again."""

from collections.abc import Callable
from functools import cache

from fledge.engine.block import Keep
from fledge.engine.parts import Block, Body
from fledge.ops.choice import WIDEST
from fledge.ops.plan import Shape

Keeps = Callable[[int, int], tuple[Keep, ...]]
"""The positions of a micro-batch, and those of its encoder, 0 where there is none -> for each block what it saves."""


def kept_bytes(block: Block, keep: Keep, *, rows: int, sources: int = 0, is_fused: bool = False) -> int:
    """Bytes that a block saves of a micro-batch of `rows` positions, and `sources` of an encoder that it attends to;
    fused attention keeps its result, and a sum for each head beside it.
    """

    def takes(shape: Shape) -> bool:
        return is_fused and shape.head_dim <= WIDEST

    hidden, size = block.attention.out.weight.shape[0], block.mlp.up.weight.dtype.itemsize
    width = hidden
    if keep < Keep.INPUT:
        extra = sum(norm is not None for norm in (block.after_attention, block.after_mlp))
        width += sum(layer.weight.shape[0] for layer in block.attention.projections) + hidden * (1 + extra)
        is_kept = block.attention.out.lora or takes(block.attention.shape)
        width += block.attention.out.weight.shape[1] if is_kept else 0
    if keep == Keep.ALL:
        width += block.mlp.up.weight.shape[0] * (1 if block.mlp.gate is None else 2)
    across, sums = 0, 0
    if keep < Keep.INPUT:
        shapes = [part.shape for part in (block.attention, block.cross) if part is not None]
        sums = sum(4 * shape.kv_heads * shape.groups for shape in shapes if takes(shape))
    if keep < Keep.INPUT and block.cross is not None:
        heads = block.cross.query.weight.shape[0]
        width += hidden + heads * (2 if block.cross.out.lora or takes(block.cross.shape) else 1)
        across = sources * 2 * heads * size
    return rows * (width * size + sums) + across


def choose_keeps(body: Body, *, rows: int, budget: float, sources: int = 0, is_fused: bool = False) -> tuple[Keep, ...]:
    """For each block what it saves, so that all together stay within `budget` bytes where that can be. An encoder's
    blocks, which come first, have `sources` positions, the others `rows`.

    The inner features are given up first, for they are most of the memory and one or two products; then all but the
    input. Blocks give up from the first on: the last ones' are used again soonest.
    """
    blocks = body.all_blocks
    below = len(blocks) - len(body.blocks)

    def bytes_of(number: int, keep: Keep) -> int:
        own = sources if number < below else rows
        return kept_bytes(blocks[number], keep, rows=own, sources=sources, is_fused=is_fused)

    keeps = [Keep.ALL] * len(blocks)
    total = sum(bytes_of(number, Keep.ALL) for number in range(len(blocks)))
    for keep in (Keep.MIDDLE, Keep.INPUT):
        for number in range(len(blocks)):
            if total <= budget:
                return tuple(keeps)
            total -= bytes_of(number, keeps[number]) - bytes_of(number, keep)
            keeps[number] = keep
    return tuple(keeps)


def keeps_within(body: Body, budget: float, *, is_fused: bool = False) -> Keeps:
    """choose_keeps for micro-batches as they come: a long row costs time where a short one need not."""
    return cache(lambda rows, sources: choose_keeps(body, rows=rows, sources=sources, budget=budget, is_fused=is_fused))
