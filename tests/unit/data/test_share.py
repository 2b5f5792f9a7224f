"""Rows that begin alike: every row can be put together again, what is shared is computed once, plans keep the limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.data.collate import collate
from fledge.data.pack import plan_shared
from fledge.data.rows import Row
from fledge.data.share import MIN_SHARED, lay_out
from fledge.training.fast_loss import as_packed


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int32)


@st.composite
def families(draw, *, most: int = 8):
    """Rows that grow out of each other: each begins with some of an earlier one, or with nothing."""
    found: list[np.ndarray] = []
    for _ in range(draw(st.integers(1, most))):
        begin = ids()
        if found and draw(st.integers(0, 4)):
            parent = found[draw(st.integers(0, len(found) - 1))]
            begin = parent[: draw(st.integers(0, len(parent)))]
        least = 0 if len(begin) else 1
        own = draw(st.lists(st.integers(0, 1), min_size=least, max_size=30))
        found.append(np.concatenate([begin, ids(*own)]))
    return found


def places(layout, path) -> np.ndarray:
    """Where the tokens of a row stand."""
    parts = [layout.segments[number] for number in path]
    return np.concatenate([np.arange(part.start, part.start + part.last - part.first) for part in parts])


def packed_ids(rows, layout) -> np.ndarray:
    return np.concatenate([rows[part.row][part.first : part.last] for part in layout.segments])


@given(families(), st.booleans())
def test_every_row_is_its_segments_one_after_the_other(rows, share):
    layout = lay_out(rows, share=share)
    whole = packed_ids(rows, layout)
    assert len(layout.paths) == len(rows)
    assert len(whole) == layout.num_positions
    for row, path in zip(rows, layout.paths, strict=True):
        assert whole[places(layout, path)].tolist() == row.tolist()
        ends = [(layout.segments[n].first, layout.segments[n].last) for n in path]
        assert [first for first, _ in ends] == [0, *(last for _, last in ends[:-1])]


@given(families(), st.booleans())
def test_segments_follow_each_other_and_what_comes_before_them(rows, share):
    layout, at = lay_out(rows, share=share), 0
    for number, part in enumerate(layout.segments):
        assert part.start == at
        assert part.last > part.first
        assert all(before < number for before in part.before)
        lengths = [layout.segments[before].last - layout.segments[before].first for before in part.before]
        assert sum(lengths) == part.first
        at += part.last - part.first
    assert all(layout.segments[path[-1]].before == path[:-1] for path in layout.paths)
    assert {number for path in layout.paths for number in path} == set(range(len(layout.segments)))


@given(families())
def test_every_row_keeps_its_last_token_to_itself(rows):
    layout = lay_out(rows, share=True)
    last = [path[-1] for path in layout.paths]
    used = [number for path in layout.paths for number in path]
    assert len(set(last)) == len(rows)
    assert all(used.count(number) == 1 for number in last)


@given(families())
def test_what_is_shared_is_long_enough_to_pay(rows):
    layout = lay_out(rows, share=True)
    used = [number for path in layout.paths for number in path]
    shared = [part for number, part in enumerate(layout.segments) if used.count(number) > 1]
    assert all(part.last - part.first >= MIN_SHARED for part in shared)
    assert layout.num_positions == sum(map(len, rows)) - sum(
        (used.count(number) - 1) * (part.last - part.first) for number, part in enumerate(layout.segments)
    )


def in_common(rows) -> int:
    """Tokens that a pair of rows has in common, the last one of either left out."""
    first, second = rows
    width = min(len(first), len(second)) - 1
    return next((n for n in range(width) if first[n] != second[n]), width)


@given(families(most=2))
def test_two_rows_share_all_that_they_begin_with(rows):
    rows = [*rows, rows[0]][:2]
    common = in_common(rows)
    saved = common if common >= MIN_SHARED else 0
    assert lay_out(rows, share=True).num_positions == sum(map(len, rows)) - saved


def test_without_sharing_rows_stand_one_after_the_other():
    rows = [ids(*range(20)), ids(*range(20)), ids(3)]
    layout = lay_out(rows, share=False)
    assert [(part.row, part.first, part.last, part.start) for part in layout.segments] == [
        (0, 0, 20, 0),
        (1, 0, 20, 20),
        (2, 0, 1, 40),
    ]
    assert layout.paths == ((0,), (1,), (2,))


@pytest.mark.parametrize("count", [2, 5])
def test_equal_rows_stay_as_many_with_one_token_each(count):
    layout = lay_out([ids(*range(20))] * count, share=True)
    assert layout.num_positions == 19 + count
    assert len(layout.segments) == 1 + count
    assert len(set(layout.paths)) == count


def test_beginnings_within_beginnings_are_each_computed_once():
    rows = [ids(*range(10), 100), ids(*range(20), 101), ids(*range(30), 102), ids(*range(30), 103, 104)]
    layout = lay_out(rows, share=True)
    assert layout.num_positions == 30 + 1 + 1 + 1 + 2
    assert [len(path) for path in layout.paths] == [2, 3, 4, 4]


def test_beginnings_too_short_to_pay_are_computed_again():
    short = list(range(MIN_SHARED - 1))
    rows = [ids(*short, 100), ids(*short, 101)]
    assert lay_out(rows, share=True).num_positions == 2 * MIN_SHARED
    assert lay_out([ids(*short, 50, 100), ids(*short, 50, 101)], share=True).num_positions == MIN_SHARED + 2


def test_a_conversation_of_hundreds_of_turns_can_be_laid_out():
    """Each row goes on where the one before ended, so beginnings lie as deep within each other as there are rows."""
    turns = np.arange(MIN_SHARED * 256, dtype=np.int32)
    rows = [turns[: MIN_SHARED * number + 1] for number in range(1, 257)]
    assert lay_out(rows, share=True).num_positions == len(turns) + 255


@settings(deadline=None)
@given(families(most=12), st.integers(1, 80), st.sampled_from([1, 16]))
def test_a_plan_has_every_row_once_within_the_limit_and_is_the_same_again(rows, limit, grain):
    plan = plan_shared(rows, limit_tokens=limit, grain=grain)
    assert sorted(position for group in plan for position in group) == list(range(len(rows)))
    assert all(plan)
    for group in plan:
        positions = lay_out([rows[position] for position in group], share=True).num_positions
        assert positions <= limit or len(group) == 1
    assert plan_shared([row.copy() for row in rows], limit_tokens=limit, grain=grain) == plan


def test_a_row_longer_than_the_limit_does_not_let_others_exceed_it():
    rows = [ids(*range(300)), *(ids(*range(1000 * n, 1000 * n + 30)) for n in range(1, 9))]
    plan = plan_shared(rows, limit_tokens=64)
    assert [0] in plan
    assert sorted(map(len, plan)) == [1, 2, 2, 2, 2]


def test_beginnings_that_are_shared_differently_in_a_group_keep_the_limit_too():
    """Among all rows the first 8 tokens are shared and then 13 more; in the group alone 14 are, and 7 are too few."""
    ones = [1] * 30
    rows = [
        ids(*ones[:8], *[0] * 72),
        ids(*ones[:14], *[0] * 20),
        ids(*ones[:21], *[0] * 20),
        ids(*ones[:21], *[2] * 20),
    ]
    for limit in range(80, 160):
        for group in plan_shared(rows, limit_tokens=limit):
            assert lay_out([rows[position] for position in group], share=True).num_positions <= limit


def test_rows_that_begin_alike_are_put_together():
    families_of_two = [[ids(*range(100 * n, 100 * n + 40), end) for end in (1, 2)] for n in range(4)]
    rows = [family[number] for number in range(2) for family in families_of_two]
    plan = plan_shared(rows, limit_tokens=42)
    assert sorted(sorted(group) for group in plan) == [[0, 4], [1, 5], [2, 6], [3, 7]]


@st.composite
def trained_rows(draw):
    found = draw(families(most=6))
    return [Row(row, np.array(draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row))))) for row in found]


def predicted_from(batch) -> list[int]:
    """The position that predicts each target."""
    return (batch.sources if batch.which is None else batch.sources[batch.which]).tolist()


def asked(batch, layout, number: int) -> list[tuple[int, int]]:
    """Pairs of place in the row and token that the row's positions must predict; others' where they are shared."""
    place_of = {int(place): n for n, place in enumerate(places(layout, layout.paths[number]))}
    pairs = zip(predicted_from(batch), batch.targets.tolist(), strict=True)
    return [(place_of[source], target) for source, target in pairs if source in place_of]


@settings(deadline=None)
@given(trained_rows())
def test_a_shared_batch_says_of_each_row_what_the_unshared_says(rows):
    indices = list(range(10, 10 + len(rows)))
    shared = collate(rows, indices, is_packed=True, pad_id=0, share=True)
    apart = collate(rows, indices, is_packed=True, pad_id=0)
    layout = lay_out([row.input_ids for row in rows], share=True)
    assert shared.segments == layout.segments
    assert shared.input_ids.shape == shared.position_ids.shape == (1, layout.num_positions)
    start = 0
    for number, row in enumerate(rows):
        here, there = places(layout, layout.paths[number]), slice(start, start + len(row.input_ids))
        assert shared.input_ids[0, here].tolist() == apart.input_ids[0, there].tolist() == row.input_ids.tolist()
        assert shared.position_ids[0, here].tolist() == apart.position_ids[0, there].tolist()
        start += len(row.input_ids)
    for name in ("lengths", "rows", "num_tokens", "supervised_tokens", "attention_mask", "is_packed"):
        assert getattr(shared, name) == getattr(apart, name)


@settings(deadline=None)
@given(trained_rows())
def test_a_shared_batch_asks_for_every_trained_token_of_every_row_once(rows):
    shared = collate(rows, list(range(len(rows))), is_packed=True, pad_id=0, share=True)
    layout = lay_out([row.input_ids for row in rows], share=True)
    wanted = []
    for row, path in zip(rows, layout.paths, strict=True):
        stand = places(layout, path)
        wanted += [(int(stand[n - 1]), int(row.input_ids[n])) for n in range(1, len(stand)) if row.trained[n]]
    found = list(zip(predicted_from(shared), shared.targets.tolist(), strict=True))
    assert sorted(found) == sorted(wanted)
    assert shared.sources.tolist() == sorted({source for source, _ in wanted})


@settings(deadline=None)
@given(trained_rows(), st.booleans())
def test_the_engine_is_given_a_document_for_each_segment_and_what_it_continues(rows, share):
    batch = collate(rows, list(range(len(rows))), is_packed=True, pad_id=0, share=share)
    packed = as_packed(batch)
    assert len(packed.side.documents) == len(batch.segments)
    for document, part in zip(packed.side.documents, batch.segments, strict=True):
        assert (document.start, document.end - document.start) == (part.start, part.last - part.first)
        assert document.prefix_length == part.first
        before = [token for start, end in document.prefix for token in packed.side.input_ids[start:end].tolist()]
        assert before == rows[part.row].input_ids[: part.first].tolist()
    assert (packed.which is None) == (len(packed.sources) == len(packed.targets))
