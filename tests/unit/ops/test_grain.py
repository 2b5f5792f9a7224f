"""Sizes are rounded up, to few values."""

from hypothesis import given
from hypothesis import strategies as st

from fledge.ops.grain import GRAIN, grain_of, rounded


@given(st.integers(0, 10**6), st.integers(1, 1000))
def test_rounded_is_the_least_multiple_that_is_enough(count, grain):
    found = rounded(count, grain)
    assert found % grain == 0
    assert count <= found < count + grain


def test_the_grain_is_taken_where_none_is_said():
    assert [rounded(count) for count in (0, 1, GRAIN, GRAIN + 1)] == [0, GRAIN, GRAIN, 2 * GRAIN]


@given(st.integers(0, 20_000))
def test_a_micro_batch_has_at_most_eight_sizes(rows):
    grain = grain_of(rows)
    assert grain % 16 == 0
    assert grain > 0
    assert rounded(rows, grain) // grain <= 8


@given(st.integers(1, 100))
def test_a_full_micro_batch_of_a_round_size_is_not_rounded_past_its_room(count):
    assert rounded(128 * count, grain_of(128 * count)) == 128 * count
