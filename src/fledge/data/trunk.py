"""What the micro-batches of one step begin with in common: computed once for the step, with the first of them.

A template or a system prompt would else be computed once for each micro-batch, and small ones are many. Its gradient is
the sum of what all of them send back to it. Only tokens that predict nothing lie in the trunk, so it has no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fledge.data.pack import fullest, plan_shared
from fledge.data.rows import Row
from fledge.data.share import Ids, Layout, Segment, lay_out

AGAIN = 1.5
"""What the trunk costs beside as many other positions, for its forward pass is computed again in the backward pass."""
PASS = 24
"""What a micro-batch costs beside its positions, in positions, for products of few rows are slower (bench/log.md)."""
GAIN = 0.8
"""With a trunk there must be no more to compute than this part of what there is without one. At 0.88 the clock showed
no gain, and the trunk takes memory (bench/log.md)."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """A tree of beginnings, laid out from position 0. A segment's `row` counts `texts`."""

    texts: tuple[Ids, ...]
    segments: tuple[Segment, ...]

    @property
    def num_positions(self) -> int:
        return sum(part.last - part.first for part in self.segments)

    def path_of(self, ids: Ids) -> tuple[int, ...]:
        """The segments that a row begins with, first to last. Its last token is never among them."""
        path: tuple[int, ...] = ()
        for number, part in enumerate(self.segments):
            if part.before != path or len(ids) <= part.last:
                continue
            if np.array_equal(ids[part.first : part.last], self.texts[part.row][part.first : part.last]):
                path = (*path, number)
        return path


def lay_out_beyond(rows: Sequence[Ids], trunk: Trunk) -> Layout:
    """The trunk, and after it what the rows do not have of it: of rows that leave it at the same place as the tree of
    their beginnings. A trunk's segment counts `row` after the rows, as if its texts followed them.
    """
    segments = [replace(part, row=len(rows) + part.row) for part in trunk.segments]
    paths: list[tuple[int, ...]] = [()] * len(rows)
    leaving: dict[tuple[int, ...], list[int]] = {}
    for number, ids in enumerate(rows):
        leaving.setdefault(trunk.path_of(ids), []).append(number)
    for path, numbers in leaving.items():
        depth = trunk.segments[path[-1]].last if path else 0
        own = lay_out([rows[number][depth:] for number in numbers], share=True)
        here, at = len(segments), segments[-1].start + segments[-1].last - segments[-1].first
        for part in own.segments:
            before = (*path, *(here + other for other in part.before))
            first, last = part.first + depth, part.last + depth
            segments.append(Segment(numbers[part.row], first, last, at + part.start, before))
        for number, own_path in zip(numbers, own.paths, strict=True):
            paths[number] = (*path, *(here + other for other in own_path))
    return Layout(tuple(segments), tuple(paths))


def plan_step(rows: Sequence[Row], *, limit_tokens: int, grain: int = 1) -> tuple[Trunk | None, list[list[int]]]:
    """A trunk of the rows, None where none would pay, and positions in `rows`, grouped as plan_shared does.

    A group and the trunk hold at most `limit_tokens` positions together, or the group half as many where the trunk
    takes more; a row that has more is a group of its own. Rounding up comes after. The same for the same arguments.
    """
    ids = [row.input_ids for row in rows]
    apart = plan_shared(ids, limit_tokens=limit_tokens, grain=grain)
    trunk = _trunk(rows, most=max(limit_tokens // 2, *map(len, ids))) if len(apart) > 1 else None
    if trunk is None:
        return None, apart
    groups = _grouped(ids, trunk, limit=max(limit_tokens - trunk.num_positions, limit_tokens // 2, 1), grain=grain)
    without = sum(_cost(lay_out([ids[b] for b in group], share=True).num_positions, grain) for group in apart)
    beyond = sum(_cost(_positions_beyond([ids[b] for b in group], trunk), grain) for group in groups)
    pays = len(groups) > 1 and AGAIN * _cost(trunk.num_positions, 1) + beyond <= GAIN * without
    return (trunk, groups) if pays else (None, apart)


def _trunk(rows: Sequence[Row], *, most: int) -> Trunk | None:
    """The beginnings that the most rows share and that predict nothing trained, together at most `most` positions; None
    where there are none.
    """
    layout = lay_out([row.input_ids for row in rows], share=True)
    users: list[list[Row]] = [[] for _ in layout.segments]
    for row, path in zip(rows, layout.paths, strict=True):
        for number in path:
            users[number].append(row)
    places: dict[int, int] = {}
    segments: list[Segment] = []
    size = 0
    for number in sorted(range(len(users)), key=lambda number: -len(users[number])):
        part = layout.segments[number]
        is_rooted = all(before in places for before in part.before)
        is_silent = not any(row.trained[part.first + 1 : part.last + 1].any() for row in users[number])
        if len(users[number]) > 1 and is_rooted and is_silent and size + part.last - part.first <= most:
            places[number] = len(segments)
            before = tuple(places[other] for other in part.before)
            segments.append(Segment(len(segments), part.first, part.last, size, before))
            size += part.last - part.first
    texts = tuple(users[number][0].input_ids for number in places)
    return Trunk(texts, tuple(segments)) if segments else None


def _grouped(ids: Sequence[Ids], trunk: Trunk, *, limit: int, grain: int) -> list[list[int]]:
    """The rows in groups that hold at most `limit` positions beyond the trunk."""
    layout, taken = lay_out_beyond(ids, trunk), len(trunk.segments)
    sizes = [0 if number < taken else part.last - part.first for number, part in enumerate(layout.segments)]

    def positions(group: Sequence[int]) -> int:
        return _positions_beyond([ids[b] for b in group], trunk)

    return fullest(layout.paths, sizes, limit=limit, grain=grain, positions=positions)


def _positions_beyond(rows: Sequence[Ids], trunk: Trunk) -> int:
    """What the rows hold of their own when they are laid out together."""
    return lay_out_beyond(rows, trunk).num_positions - trunk.num_positions


def _cost(positions: int, grain: int) -> int:
    """Of a forward and a backward pass, in positions."""
    return -(-positions // grain) * grain + PASS
