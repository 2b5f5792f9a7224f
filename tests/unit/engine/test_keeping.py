"""What is kept: as much as the memory allows, inner features given up first, and as many bytes as are told."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.engine.block import Keep
from fledge.engine.keeping import choose_keeps, keeps_within, kept_bytes
from fledge.engine.run import Engine
from fledge.ops.buffers import Buffers
from fledge.ops.choice import runs_on
from fledge.ops.grain import rounded
from tests.unit.engine.bodies import KINDS, body_of, packed, rows_of

ROWS = 96
BODIES = {name: body_of(name) for name in KINDS}
names = st.sampled_from(sorted(KINDS))


def total(body, keeps) -> int:
    return sum(kept_bytes(block, keep, rows=ROWS) for block, keep in zip(body.blocks, keeps, strict=True))


def all_of(body, keep: Keep) -> int:
    return total(body, (keep,) * len(body.all_blocks))


@settings(deadline=None)
@given(names, st.floats(0, 1.2))
def test_the_budget_is_kept_wherever_it_can_be(name, share):
    body = BODIES[name]
    budget = share * all_of(body, Keep.ALL)
    keeps = choose_keeps(body, rows=ROWS, budget=budget)
    assert len(keeps) == len(body.blocks) == 3
    if budget < all_of(body, Keep.INPUT):
        assert set(keeps) == {Keep.INPUT}
    else:
        assert total(body, keeps) <= budget


@settings(deadline=None)
@given(names, st.floats(0, 1.2))
def test_inner_features_go_first_and_the_first_blocks_first(name, share):
    body = BODIES[name]
    keeps = choose_keeps(body, rows=ROWS, budget=share * all_of(body, Keep.ALL))
    assert max(keeps) - min(keeps) <= 1
    assert list(keeps) == sorted(keeps, reverse=True)


@settings(deadline=None)
@given(names, st.floats(0, 1.2))
def test_no_more_is_given_up_than_must_be(name, share):
    body = BODIES[name]
    budget = share * all_of(body, Keep.ALL)
    keeps = list(choose_keeps(body, rows=ROWS, budget=budget))
    given_up = [number for number, keep in enumerate(keeps) if keep == max(keeps)]
    if max(keeps) == Keep.ALL:
        assert all_of(body, Keep.ALL) <= budget
    else:
        keeps[given_up[-1]] = Keep(max(keeps) - 1)
        assert total(body, keeps) > budget


@pytest.mark.parametrize(("budget", "keep"), [(float("inf"), Keep.ALL), (0.0, Keep.INPUT)])
def test_without_bounds_all_is_kept_and_without_memory_the_inputs(budget, keep):
    assert choose_keeps(BODIES["llama"], rows=ROWS, budget=budget) == (keep,) * 3


@pytest.mark.parametrize("keep", list(Keep))
@pytest.mark.parametrize("name", KINDS)
def test_the_bytes_told_are_those_of_the_buffers(name, keep):
    body = BODIES[name]
    engine = Engine(body, Buffers(torch.device("cpu"), rows=ROWS), lambda *_: (keep,) * 3)
    batch = packed(rows_of(), is_shared=False)
    engine.loss(batch)
    rows = rounded(len(batch.side.input_ids))
    held = [0, 0, 0]
    for (buffer, dtype, _), flat in engine.buffers._flat.items():
        number, _, _ = buffer.partition(".")
        if number.isdigit():
            held[int(number)] += flat.numel() * dtype.itemsize
    is_fused = runs_on(torch.device("cpu"))  # where test_interpreted.py runs this
    assert held == [kept_bytes(block, keep, rows=rows, is_fused=is_fused) for block in body.blocks]


def test_a_longer_micro_batch_keeps_less_within_the_same_budget():
    body = BODIES["llama"]
    keeps = keeps_within(body, all_of(body, Keep.ALL))
    assert keeps(ROWS, 0) == (Keep.ALL,) * 3
    assert keeps(2 * ROWS, 0) == choose_keeps(body, rows=2 * ROWS, budget=all_of(body, Keep.ALL)) != keeps(ROWS, 0)
