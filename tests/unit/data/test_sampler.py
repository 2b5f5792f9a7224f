"""The order of rows: a pure function in which every row comes as often as its weight says."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fledge.data.sampler import RowOrder

sizes = st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(lambda found: sum(found) > 0)


@st.composite
def mixtures(draw):
    found = draw(sizes)
    weights = draw(st.lists(st.sampled_from([0.1, 0.5, 1.0, 1.5, 2.0, 3.0]), min_size=len(found), max_size=len(found)))
    return found, weights


def epoch(order, number):
    first = number * order.steps_per_epoch + 1
    return [row for step in range(first, first + order.steps_per_epoch) for row in order.rows_of_step(step)]


@given(mixtures(), st.integers(0, 2**63 - 1), st.integers(1, 40))
def test_each_epoch_takes_each_source_by_its_weight(mixture, seed, rows_per_step):
    found, weights = mixture
    order = RowOrder(found, weights, seed=seed, rows_per_step=rows_per_step)
    seen = Counter()
    for number in range(4):
        rows = epoch(order, number)
        assert len(rows) == order.rows_per_epoch
        seen.update(rows)
        first = 0
        for size, weight in zip(found, weights, strict=True):
            here = [row for row in rows if first <= row < first + size]
            count = max(round(size * weight), 1) if size else 0
            assert len(here) == count
            often = Counter(here)
            if weight == int(weight) and size:
                assert set(often.values()) == {int(weight)} and len(often) == size
            total = [seen[row] for row in range(first, first + size)]
            assert not total or max(total) - min(total) <= 1
            first += size
    assert set(seen) <= set(range(sum(found)))


@given(mixtures(), st.integers(0, 100), st.integers(1, 10), st.integers(1, 50))
def test_a_step_is_the_same_whoever_asks_and_whatever_was_asked_before(mixture, seed, rows_per_step, step):
    order = RowOrder(*mixture, seed=seed, rows_per_step=rows_per_step)
    before = order.rows_of_step(step)
    order.rows_of_step(step + order.steps_per_epoch * 3)
    assert order.rows_of_step(step) == before
    assert RowOrder(*mixture, seed=seed, rows_per_step=rows_per_step).rows_of_step(step) == before


def test_half_weight_takes_the_other_half_next_time():
    order = RowOrder([10], [0.5], seed=1, rows_per_step=5)
    assert set(order.rows_of_step(1)) | set(order.rows_of_step(2)) == set(range(10))


def test_epochs_seeds_and_sources_are_shuffled_apart():
    order = RowOrder([50], [1.0], seed=1, rows_per_step=50)
    assert order.rows_of_step(1) != order.rows_of_step(2)
    assert order.rows_of_step(1) != RowOrder([50], [1.0], seed=2, rows_per_step=50).rows_of_step(1)
    both = RowOrder([50, 50], [1.0, 1.0], seed=1, rows_per_step=100).rows_of_step(1)
    first = [row for row in both if row < 50]
    assert first != [row - 50 for row in both if row >= 50]
    assert list(both[:50]) != first


def test_order_is_the_same_on_every_machine_for_ever():
    assert RowOrder([5, 3], [1.0, 2.0], seed=42, rows_per_step=11).rows_of_step(1) == EXPECTED


EXPECTED = (0, 4, 6, 6, 7, 2, 5, 3, 1, 5, 7)


def test_the_last_step_of_an_epoch_may_be_smaller():
    order = RowOrder([10], [1.0], seed=0, rows_per_step=4)
    assert [len(order.rows_of_step(step)) for step in range(1, 7)] == [4, 4, 2, 4, 4, 2]


@pytest.mark.parametrize(
    ("num_epochs", "max_steps", "expected"), [(3, None, 9), (0.5, None, 2), (0.1, None, 1), (1 / 3, None, 1), (3, 7, 7)]
)
def test_total_steps(num_epochs, max_steps, expected):
    assert RowOrder([10], [1.0], seed=0, rows_per_step=4).total_steps(num_epochs, max_steps) == expected


@given(mixtures(), st.integers(0, 100), st.integers(1, 10))
def test_unshuffled_rows_come_in_their_own_order_source_after_source(mixture, seed, rows_per_step):
    found, weights = mixture
    order = RowOrder(found, weights, seed=seed, rows_per_step=rows_per_step, shuffle=False)
    taken = [0] * len(found)
    for number in range(3):
        expected, first = [], 0
        for source, (size, weight) in enumerate(zip(found, weights, strict=True)):
            count = max(round(size * weight), 1) if size else 0
            expected += [first + (taken[source] + n) % size for n in range(count)]
            taken[source] += count
            first += size
        assert epoch(order, number) == expected


def test_unshuffled_the_seed_and_the_epoch_change_nothing():
    order = RowOrder([4, 3], [1.0, 1.0], seed=1, rows_per_step=7, shuffle=False)
    assert order.rows_of_step(1) == order.rows_of_step(2) == (0, 1, 2, 3, 4, 5, 6)
    assert RowOrder([4], [0.5], seed=9, rows_per_step=4, shuffle=False).rows_of_step(1) == (0, 1)
    assert RowOrder([4], [0.5], seed=9, rows_per_step=4, shuffle=False).rows_of_step(2) == (2, 3)
    assert RowOrder([2, 1], [2.0, 1.0], seed=9, rows_per_step=9, shuffle=False).rows_of_step(1) == (0, 1, 0, 1, 2)
