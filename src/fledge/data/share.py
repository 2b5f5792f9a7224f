"""Rows that begin alike share what they begin with: each distinct leading run of tokens is computed once.

In a causal model a position sees only what stands before it, so equal beginnings have equal hidden states, and the
gradients of all that follow them add up in them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SHARED = 8
"""Fewer tokens than this are cheaper to compute again than to share."""

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens [first, last) of row `row`, which stand at [start, start + last - first) of the packed row and continue
    the segments `before`, in order.
    """

    row: int
    first: int
    last: int
    start: int
    before: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows cut into segments. `paths[b]` are row b's segments, first to last: together they are its tokens."""

    segments: tuple[Segment, ...]
    paths: tuple[tuple[int, ...], ...]

    @property
    def num_positions(self) -> int:
        return sum(segment.last - segment.first for segment in self.segments)


def lay_out(rows: Sequence[Ids], *, share: bool) -> Layout:
    """The rows one after the other or, where `share`, as the tree of their beginnings. Every row keeps at least its
    last token to itself, so that equal rows stay two.
    """
    if not share or len(rows) < 2:
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        alone = tuple(Segment(b, 0, len(row), int(starts[b]), ()) for b, row in enumerate(rows))
        return Layout(alone, tuple((b,) for b in range(len(rows))))
    order = sorted(range(len(rows)), key=lambda b: rows[b].tolist())
    common = [_common(rows[a], rows[b]) for a, b in itertools.pairwise(order)]
    segments: list[Segment] = []
    paths: list[tuple[int, ...]] = [()] * len(rows)
    _grow(rows, order, common, 0, (), segments, paths)
    return Layout(tuple(segments), tuple(paths))


def _common(a: Ids, b: Ids) -> int:
    """Leading tokens that two rows share, the last one of either left out."""
    width = min(len(a), len(b)) - 1
    differs = np.flatnonzero(a[:width] != b[:width])
    return int(differs[0]) if len(differs) else width


def _grow(
    rows: Sequence[Ids],
    order: Sequence[int],
    common: Sequence[int],
    depth: int,
    before: tuple[int, ...],
    segments: list[Segment],
    paths: list[tuple[int, ...]],
) -> None:
    """Lay out the rows of `order`, neighbours of which share `common` tokens and all of which share `depth`."""
    if len(order) == 1:
        _add(segments, order[0], depth, len(rows[order[0]]), before)
        paths[order[0]] = (*before, len(segments) - 1)
        return
    least = min(common)
    if least - depth >= MIN_SHARED:
        _add(segments, order[0], depth, least, before)
        depth, before = least, (*before, len(segments) - 1)
    first = 0
    for place in (*(n for n, shared in enumerate(common) if shared - depth < MIN_SHARED), len(order) - 1):
        _grow(rows, order[first : place + 1], common[first:place], depth, before, segments, paths)
        first = place + 1


def _add(segments: list[Segment], row: int, first: int, last: int, before: tuple[int, ...]) -> None:
    start = segments[-1].start + segments[-1].last - segments[-1].first if segments else 0
    segments.append(Segment(row, first, last, start, before))
