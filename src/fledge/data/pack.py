"""Rows into micro-batches, and micro-batches' rows over ranks; changes time and memory, never the result."""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence

from fledge.data.share import Ids, lay_out


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


def plan_shared(rows: Sequence[Ids], *, limit_tokens: int, grain: int = 1) -> list[list[int]]:
    """Positions in `rows`, grouped so that each group holds at most `limit_tokens` positions, what its rows begin with
    in common counted once. A row longer than the limit is a group of its own.

    Of several ways to fill the groups the one is taken that computes least, sizes rounded up to `grain`; then the one
    with the fewest groups. The same for the same arguments.
    """
    layout = lay_out(rows, share=True)
    sizes = [segment.last - segment.first for segment in layout.segments]

    def positions(group: Sequence[int]) -> int:
        return lay_out([rows[position] for position in group], share=True).num_positions

    return fullest(layout.paths, sizes, limit=limit_tokens, grain=grain, positions=positions)


def fullest(
    paths: Sequence[tuple[int, ...]],
    sizes: Sequence[int],
    *,
    limit: int,
    grain: int,
    positions: Callable[[Sequence[int]], int],
) -> list[list[int]]:
    """Rows in groups of at most `limit` positions, for row b takes the parts paths[b], of these sizes, once a group.

    `positions` tells what a group holds when it is laid out by itself: its rows may share less then.
    """
    lengths = [sum(sizes[part] for part in path) for path in paths]
    order = sorted(range(len(paths)), key=lambda b: (-lengths[b], b))
    plans = [_filled(paths, sizes, order=order, limit=most) for most in _limits(sum(sizes), limit)]
    plans.sort(key=lambda found: (sum(-(-size // grain) * grain for size in found[0]), len(found[0])))
    for _, plan in plans:
        if all(len(group) == 1 or positions(group) <= limit for group in plan):
            return plan
    return plan_micro_batches(lengths, limit_tokens=limit, limit_rows=None, is_packed=True)


def _limits(total: int, limit: int) -> list[int]:
    """How full groups may become: the limit, and what an even share over a few more groups would be."""
    fewest = -(-total // limit)
    shares = {
        -(-total // count) + extra for count in range(fewest, fewest + 3) for extra in range(0, limit, limit // 16 or 1)
    }
    return [limit, *sorted(share for share in shares if share < limit)]


def _filled(
    paths: Sequence[tuple[int, ...]], sizes: Sequence[int], *, order: Sequence[int], limit: int
) -> tuple[list[int], list[list[int]]]:
    """Best-fit decreasing: each row goes where it leaves the least room. Sizes of the groups, and the groups."""
    groups: list[list[int]] = []
    held: list[set[int]] = []
    filled: list[int] = []
    for row in order:
        new = [sum(sizes[part] for part in paths[row] if part not in parts) for parts in held]
        fitting = [number for number, more in enumerate(new) if filled[number] + more <= limit]
        if fitting:
            best = max(fitting, key=lambda number: filled[number] + new[number])
        else:
            best = len(groups)
            groups.append([])
            held.append(set())
            filled.append(0)
            new.append(sum(sizes[part] for part in paths[row]))
        groups[best].append(row)
        held[best].update(paths[row])
        filled[best] += new[best]
    return filled, groups


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
