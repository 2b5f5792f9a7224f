"""Documents that continue others, and kinds of attention over them, drawn at random."""

import functools

import torch
from hypothesis import strategies as st

from fledge.ops.plan import Document, Shape


def alibi(heads: int, length: int, device: torch.device) -> torch.Tensor:
    slopes = 0.5 ** torch.arange(1, heads + 1, device=device)
    return slopes[:, None] * torch.arange(length, device=device)


def documents_of(lengths: tuple[int, ...], parents: tuple[int | None, ...]) -> tuple[Document, ...]:
    """Documents one after the other, each of which continues its parent, if it has one, and what that continues."""
    found: list[Document] = []
    for length, parent in zip(lengths, parents, strict=True):
        start = found[-1].end if found else 0
        above = () if parent is None else (*found[parent].prefix, (found[parent].start, found[parent].end))
        found.append(Document(start, start + length, above))
    return tuple(found)


@st.composite
def forests(draw):
    lengths = tuple(draw(st.lists(st.integers(1, 75), min_size=1, max_size=9)))
    parents = tuple(draw(st.none() | st.integers(0, number - 1)) if number else None for number in range(len(lengths)))
    return documents_of(lengths, parents)


@st.composite
def shapes(draw, widths=st.sampled_from([2, 8, 16])):  # noqa: B008
    kv_heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Shape(
        kv_heads,
        groups,
        draw(widths),
        scale=draw(st.sampled_from([0.3, 1.5])),
        softcap=draw(st.sampled_from([None, None, 2.0])),
        window=draw(st.none() | st.integers(1, 90)),
        alibi=functools.partial(alibi, kv_heads * groups) if draw(st.booleans()) else None,
    )
