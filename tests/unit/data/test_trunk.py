"""What the micro-batches of a step begin with: every row can be put together again, and nothing in it is predicted."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.data.collate import collate, collate_trunk
from fledge.data.pack import plan_shared
from fledge.data.rows import Row, TrunkUse
from fledge.data.trunk import Trunk, plan_step


@st.composite
def steps(draw):
    """Rows on a few templates that begin alike, some of whose tokens may be trained, and some rows of their own."""
    dice = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    begin = dice.integers(0, 4, draw(st.sampled_from([80, 120, 40, 10, 0])))
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=3))
    templates = [np.concatenate([begin, dice.integers(0, 4, size)]) for size in sizes]
    stray = draw(st.sampled_from([0, 20]))
    rows = []
    kinds = dice.integers(0, len(sizes) + 1, draw(st.sampled_from([24, 16, 8, 2, 1])))
    for kind in kinds:
        template = templates[kind] if kind < len(templates) else begin[:0]
        ids = np.concatenate([template, dice.integers(0, 4, dice.integers(1, 30))]).astype(np.int32)
        trained = dice.random(len(ids)) < 0.5
        trained[: max(1, len(template) - dice.integers(0, stray + 1))] = False
        rows.append(Row(ids, trained))
    return rows, draw(st.integers(16, 120)), draw(st.sampled_from([1, 16, 32]))


def predicted(batch) -> list[tuple[int, int]]:
    """Which token stands where something is predicted, and what is."""
    which = range(len(batch.targets)) if batch.which is None else batch.which.tolist()
    ids, sources = batch.input_ids[0].tolist(), batch.sources.tolist()
    return sorted((ids[sources[n]], target) for n, target in zip(which, batch.targets.tolist(), strict=True))


@settings(max_examples=300)
@given(steps())
def test_micro_batches_on_a_trunk_have_every_row_and_predict_what_rows_apart_do(step):
    rows, limit, grain = step
    trunk, groups = plan_step(rows, limit_tokens=limit, grain=grain)
    assert sorted(b for group in groups for b in group) == list(range(len(rows)))
    if trunk is None:
        assert groups == plan_shared([row.input_ids for row in rows], limit_tokens=limit, grain=grain)
        return
    assert len(groups) > 1
    found, use = [], TrunkUse(trunk.num_positions, is_first=True, is_last=True)
    for group in groups:
        batch = collate_trunk([rows[b] for b in group], group, trunk=trunk, use=use)
        assert batch.sources.numel() == 0 or batch.sources.min() >= trunk.num_positions, "something in it is predicted"
        own = batch.input_ids.shape[1] - trunk.num_positions
        assert len(group) == 1 or own <= max(limit - trunk.num_positions, limit // 2)
        assert rebuilt(batch) == [rows[b].input_ids.tolist() for b in group]
        found += predicted(batch)
    assert sorted(found) == predicted(collate(rows, range(len(rows)), is_packed=True, pad_id=0))


def rebuilt(batch) -> list[list[int]]:
    """The rows that end in the batch, by what each segment continues; in the order of the batch's documents."""
    ids, positions = batch.input_ids[0], batch.position_ids[0]
    ends: dict[int, list[int]] = {}
    for part in batch.segments:
        ranges = [batch.segments[number] for number in part.before] + [part]
        places = np.concatenate([np.arange(p.start, p.start + p.last - p.first) for p in ranges])
        assert positions[places].tolist() == list(range(len(places)))
        if part.row < len(batch.lengths) and len(places) == batch.lengths[part.row]:
            ends[part.row] = ids[places].tolist()
    return [ends[row] for row in range(len(batch.lengths))]


def row_of(begin: list[int], own: list[int]) -> Row:
    ids = np.array(begin + own, dtype=np.int32)
    return Row(ids, np.arange(len(ids)) > len(begin))


def trunk_of(rows: list[Row]) -> Trunk | None:
    return plan_step(rows, limit_tokens=128)[0]


def test_a_long_beginning_is_computed_once_and_a_short_one_with_each_micro_batch():
    own = [[100 + n] * 20 for n in range(12)]
    long = trunk_of([row_of(list(range(90)), ids) for ids in own])
    assert long is not None and long.num_positions == 90
    assert trunk_of([row_of(list(range(8)), ids) for ids in own]) is None
    assert trunk_of([row_of([], ids) for ids in own]) is None


def test_a_beginning_from_which_something_is_predicted_is_no_trunk():
    rows = [Row(np.array([*range(90), *[100 + n] * 20], dtype=np.int32), np.arange(110) > 89) for n in range(12)]
    assert trunk_of(rows) is None
    assert trunk_of([Row(row.input_ids, np.arange(110) > 90) for row in rows]) is not None


def test_a_row_leaves_a_trunk_where_it_stops_being_like_it():
    trunk = trunk_of([row_of(list(range(90)), [100 + n] * 9) for n in range(12)])
    assert trunk is not None
    assert trunk.path_of(np.arange(40, dtype=np.int32)) == ()
    assert trunk.path_of(np.arange(90, dtype=np.int32)) == (), "a row's last token is its own"
    assert trunk.path_of(np.arange(91, dtype=np.int32)) == (0,)
