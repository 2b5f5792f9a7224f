"""Micro-batches and ranks: every row exactly once, within the limits, the same each time."""

from hypothesis import given
from hypothesis import strategies as st

from fledge.data.pack import plan_micro_batches, share_of_rank

lengths = st.lists(st.integers(1, 60), max_size=40)


@given(lengths, st.none() | st.integers(1, 80), st.none() | st.integers(1, 8), st.booleans())
def test_every_row_is_in_exactly_one_micro_batch_within_the_limits(found, limit_tokens, limit_rows, is_packed):
    plan = plan_micro_batches(found, limit_tokens=limit_tokens, limit_rows=limit_rows, is_packed=is_packed)
    assert sorted(position for group in plan for position in group) == list(range(len(found)))
    for group in plan:
        members = [found[position] for position in group]
        cost = sum(members) if is_packed else max(members) * len(members)
        assert limit_tokens is None or cost <= limit_tokens or len(group) == 1
        assert limit_rows is None or len(group) <= limit_rows
    again = plan_micro_batches(found, limit_tokens=limit_tokens, limit_rows=limit_rows, is_packed=is_packed)
    assert again == plan


def test_packing_fills_bins_best_fit():
    plan = plan_micro_batches([6, 5, 4, 3, 2], limit_tokens=10, limit_rows=None, is_packed=True)
    assert plan == [[0, 2], [1, 3, 4]]


def test_padding_puts_like_lengths_together():
    plan = plan_micro_batches([1, 9, 2, 8, 1], limit_tokens=18, limit_rows=None, is_packed=False)
    assert plan == [[1, 3], [2, 0, 4]]


def test_rows_are_counted_where_tokens_are_not():
    assert plan_micro_batches([1, 2, 3], limit_tokens=None, limit_rows=1, is_packed=True) == [[2], [1], [0]]
    assert plan_micro_batches([1, 2, 3], limit_tokens=None, limit_rows=None, is_packed=True) == [[2, 1, 0]]
    assert plan_micro_batches([], limit_tokens=4, limit_rows=None, is_packed=True) == []


@given(lengths, st.integers(1, 7))
def test_ranks_divide_the_rows_and_the_work(found, world_size):
    shares = [share_of_rank(found, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(position for share in shares for position in share) == list(range(len(found)))
    loads = [sum(found[position] for position in share) for share in shares]
    assert max(loads) - min(loads) <= max(found, default=0)
    if len(found) >= world_size:
        assert all(shares)


def test_one_rank_takes_all_in_order():
    assert share_of_rank([3, 1, 2], rank=0, world_size=1) == [0, 1, 2]
