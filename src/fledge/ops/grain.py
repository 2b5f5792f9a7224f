"""Sizes are rounded up to a few values, for a product's kernel is made, and kept, once for every shape.

oneDNN keeps about a megabyte for every shape of a bfloat16 product that it has met (measured with torch 2.13, in
bench/log.md): with sizes as they come a training grew by 100 MB a step.
"""

GRAIN = 32
"""Of the sizes within attention and of the rows of the head."""


def rounded(count: int, grain: int = GRAIN) -> int:
    """`count` or the next multiple of `grain`."""
    return -(-count // grain) * grain


def grain_of(rows: int) -> int:
    """Of a micro-batch that has room for `rows` positions: an eighth of it, so that there are eight sizes and a full
    one is not rounded past its room where that is a multiple of 128.
    """
    return rounded(max(1, -(-rows // 8)), 16)
