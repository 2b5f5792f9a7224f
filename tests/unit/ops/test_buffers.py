"""Buffers: one memory for each name, shared only by lives that never meet."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.ops.buffers import Buffers

CPU = torch.device("cpu")
LIVES = ("step", "block", "head")
DTYPES = (torch.float32, torch.bfloat16)


def room(tensor: torch.Tensor) -> range:
    """The addresses that a tensor lies at."""
    return range(tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size())


def meet(a: torch.Tensor, b: torch.Tensor) -> bool:
    first, second = room(a), room(b)
    return max(first.start, second.start) < min(first.stop, second.stop)


@pytest.fixture
def small_slabs(monkeypatch):
    monkeypatch.setattr("fledge.ops.buffers.SLAB", 4096)


@pytest.mark.parametrize("life", LIVES)
def test_the_same_name_gives_the_same_memory(life):
    buffers = Buffers(CPU)
    first = buffers.take("a", 4, 8, dtype=torch.float32, life=life)
    first.fill_(3.0)
    smaller = buffers.take("a", 5, dtype=torch.float32, life=life)
    assert smaller.shape == (5,)
    assert smaller.data_ptr() == first.data_ptr()
    assert smaller.tolist() == [3.0] * 5


def test_the_same_name_in_another_number_format_is_another_tensor():
    buffers = Buffers(CPU)
    wide = buffers.take("a", 100, dtype=torch.float32)
    narrow = buffers.take("a", 100, dtype=torch.bfloat16)
    assert (wide.dtype, narrow.dtype) == DTYPES
    assert not meet(wide, narrow)


def test_a_name_grows_where_more_is_asked_and_stays_grown():
    buffers = Buffers(CPU)
    buffers.take("a", 10, dtype=torch.float32)
    grown = buffers.take("a", 1000, dtype=torch.float32)
    assert grown.shape == (1000,)
    assert buffers.take("a", 10, dtype=torch.float32).data_ptr() == grown.data_ptr()
    assert buffers.take("a", 10, 100, dtype=torch.float32).data_ptr() == grown.data_ptr()


def test_with_room_for_all_rows_nothing_grows():
    buffers = Buffers(CPU, rows=64)
    first = buffers.take_rows("a", 1, 16, dtype=torch.float32)
    last = buffers.take_rows("a", 64, 16, dtype=torch.float32)
    assert (first.shape, last.shape) == ((1, 16), (64, 16))
    assert first.data_ptr() == last.data_ptr()
    known = buffers.take("b", 1, dtype=torch.float32, room=500)
    assert buffers.take("b", 500, dtype=torch.float32).data_ptr() == known.data_ptr()


def test_memory_of_blocks_and_head_is_shared_and_that_of_a_step_is_not(small_slabs):
    buffers = Buffers(CPU)
    step, block, head = (buffers.take(life, 900, dtype=torch.float32, life=life) for life in LIVES)
    assert meet(block, head)
    assert not meet(step, block)
    assert not meet(step, head)
    assert buffers.num_bytes == 3 * 4096


def test_what_is_kept_for_a_step_is_laid_out_anew_for_the_next_one(small_slabs):
    buffers = Buffers(CPU, rows=100)
    kept = buffers.take("a", 500, dtype=torch.float32, life="step")
    other = buffers.take("b", 500, dtype=torch.float32)
    other.fill_(3.0)
    buffers.begin()
    again = buffers.take("c", 500, dtype=torch.float32, life="step")
    assert again.data_ptr() == kept.data_ptr()
    assert not meet(again, buffers.take("a", 500, dtype=torch.float32, life="step"))
    assert buffers.take("b", 500, dtype=torch.float32).eq(3.0).all()


def test_a_tensor_larger_than_a_slab_has_one_of_its_own(small_slabs):
    buffers = Buffers(CPU)
    small = buffers.take("small", 8, dtype=torch.float32)
    large = buffers.take("large", 5008, dtype=torch.float32)
    assert not meet(small, large)
    assert buffers.num_bytes == 2 * 4096 + 4 * 5008


takes = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 700), st.sampled_from(DTYPES), st.integers(0, 300)),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(takes, st.sampled_from(["block", "head"]))
def test_no_two_names_that_live_together_overlap(asked, other):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fledge.ops.buffers.SLAB", 4096)
        buffers, live = Buffers(CPU), {}
        for name, count, dtype, known in asked:
            life = "step" if name in "abc" else other
            live[name, dtype] = buffers.take(name, count, dtype=dtype, room=known, life=life)
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in live.values())
    for number, tensor in enumerate(live.values()):
        tensor.fill_(number)
    assert len(live) == len({(name, dtype) for name, _, dtype, _ in asked})
    assert all(tensor.eq(number).all() for number, tensor in enumerate(live.values()))
