"""Rows into micro-batches, and micro-batches' rows over ranks; changes time and memory, never the result."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from fledge.data.share import Ids, lay_out, shared_lengths


def plan_micro_batches(
    lengths: Sequence[int], *, limit_tokens: int | None, limit_rows: int | None, is_packed: bool
) -> list[list[int]]:
    """Positions in `lengths`, grouped; every position in exactly one group, the same for the same arguments.

    packed: the fewest groups of at most `limit_tokens` that best-fit decreasing finds. padded: rows of like length
    together, the longest times their number at most `limit_tokens`. A row longer than the limit is a group of its own.
    `limit_rows` bounds the rows of a group; with neither limit all rows are one group.
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    if limit_tokens is not None and is_packed:
        return _best_fit(lengths, order, limit_tokens=limit_tokens, limit_rows=limit_rows)
    groups: list[list[int]] = []
    for position in order:
        if groups and _has_room(groups[-1], lengths, limit_tokens=limit_tokens, limit_rows=limit_rows):
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def plan_shared(rows: Sequence[Ids], *, limit_tokens: int) -> list[list[int]]:
    """Positions in `rows`, grouped: as few groups as hold at most `limit_tokens` distinct positions each, and about as
    full as each other. What rows begin with in common counts once in a group. A row longer than the limit is a group
    of its own.
    """
    costs = [len(row) - shared for row, shared in zip(rows, shared_lengths(rows), strict=True)]
    order = sorted(range(len(rows)), key=lambda position: (-costs[position], position))
    fullest = max(limit_tokens, max(len(row) for row in rows))
    groups = max(1, -(-sum(costs) // limit_tokens))
    best: list[list[int]] | None = None
    for limit in _limits(sum(costs), groups, limit_tokens):
        found = _best_fit(costs, order, limit_tokens=limit, limit_rows=None)
        is_small = all(lay_out([rows[p] for p in group], share=True).num_positions <= fullest for group in found)
        if is_small and (best is None or len(found) < len(best)):
            best = found
    return best or plan_micro_batches(
        [len(row) for row in rows], limit_tokens=limit_tokens, limit_rows=None, is_packed=True
    )


def _limits(total: int, groups: int, limit: int) -> list[int]:
    """What a group may cost: from an even share of the total to the limit, in steps of a sixteenth of it."""
    step = max(1, limit // 16)
    return sorted({limit, *range(-(-total // groups), limit, step), *range(-(-total // (groups + 1)), limit, step)})


def _has_room(group: list[int], lengths: Sequence[int], *, limit_tokens: int | None, limit_rows: int | None) -> bool:
    """Whether a row no longer than those in `group`, whose first is the longest, may join it."""
    if limit_rows is not None and len(group) >= limit_rows:
        return False
    return limit_tokens is None or lengths[group[0]] * (len(group) + 1) <= limit_tokens


def _best_fit(
    lengths: Sequence[int], order: Sequence[int], *, limit_tokens: int, limit_rows: int | None
) -> list[list[int]]:
    """Best-fit decreasing: each row, longest first, goes where it leaves the least room."""
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, group), sorted
    for position in order:
        length = lengths[position]
        at = bisect_left(room, (length, -1))
        if at < len(room):
            left, group = room.pop(at)
        else:
            left, group = limit_tokens, len(groups)
            groups.append([])
        groups[group].append(position)
        is_full = limit_rows is not None and len(groups[group]) >= limit_rows
        if left - length > 0 and not is_full:
            insort(room, (left - length, group))
    return groups


def share_of_rank(lengths: Sequence[int], *, rank: int, world_size: int) -> list[int]:
    """Positions in `lengths` that are this rank's, rising: a partition over the ranks, balanced by tokens.

    The longest row goes to the rank with the fewest tokens, and so on (Graham's rule); ties go to fewer rows, then
    to the lower rank. With fewer rows than ranks some ranks get none.
    """
    assert 0 <= rank < world_size
    if world_size == 1:
        return list(range(len(lengths)))
    loads = [(0, 0, index) for index in range(world_size)]
    mine = []
    for position in sorted(range(len(lengths)), key=lambda position: (-lengths[position], position)):
        tokens, rows, lightest = min(loads)
        loads[lightest] = (tokens + lengths[position], rows + 1, lightest)
        if lightest == rank:
            mine.append(position)
    return sorted(mine)
