"""What each block saves for its backward pass: all where memory allows, else what costs most to compute again."""

from collections.abc import Callable
from functools import cache

from fledge.engine.block import Keep
from fledge.engine.parts import Block, Body

Keeps = Callable[[int], tuple[Keep, ...]]
"""The positions of a micro-batch -> for each block what it saves."""


def kept_bytes(block: Block, keep: Keep, *, rows: int) -> int:
    """Bytes that a block saves of a micro-batch of `rows` positions."""
    hidden, size = block.attention.out.weight.shape[0], block.mlp.up.weight.element_size()
    width = hidden
    if keep < Keep.INPUT:
        extra = sum(norm is not None for norm in (block.after_attention, block.after_mlp))
        width += sum(layer.weight.shape[0] for layer in block.attention.projections) + hidden * (1 + extra)
        width += block.attention.out.weight.shape[1] if block.attention.out.lora else 0
    if keep == Keep.ALL:
        width += block.mlp.up.weight.shape[0] * (1 if block.mlp.gate is None else 2)
    return rows * width * size


def choose_keeps(body: Body, *, rows: int, budget: float) -> tuple[Keep, ...]:
    """For each block what it saves, so that all together stay within `budget` bytes where that can be.

    The inner features are given up first, for they are most of the memory and one or two products; then all but the
    input. Blocks give up from the first on: the last ones' are used again soonest.
    """
    keeps = [Keep.ALL] * len(body.blocks)
    total = sum(kept_bytes(block, Keep.ALL, rows=rows) for block in body.blocks)
    for keep in (Keep.MIDDLE, Keep.INPUT):
        for number, block in enumerate(body.blocks):
            if total <= budget:
                return tuple(keeps)
            total -= kept_bytes(block, keeps[number], rows=rows) - kept_bytes(block, keep, rows=rows)
            keeps[number] = keep
    return tuple(keeps)


def keeps_within(body: Body, budget: float) -> Keeps:
    """choose_keeps for micro-batches as they come: a long row costs time where a short one need not."""
    return cache(lambda rows: choose_keeps(body, rows=rows, budget=budget))
