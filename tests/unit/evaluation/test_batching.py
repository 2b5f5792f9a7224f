"""Batches cover every prompt once, the longest first, and stay within the memory that they are given."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from fledge.evaluation.batching import MAX_ROWS, Batches, Footprint, bytes_at_hand, footprint
from tests.tiny_models import tiny_folder
from tests.unit.evaluation.pairs import tiny_bart, tiny_t5

LENGTHS = st.lists(st.integers(1, 300), max_size=90)
FOOTPRINTS = st.builds(Footprint, st.booleans(), *(st.integers(1, 50) for _ in range(5)))
LIMITS = st.floats(1, 1e7)


def made(lengths: list[int], foot: Footprint, limit: float, positions: int | None = None, new: int = 20) -> Batches:
    return Batches(lengths, foot, new, 2, positions, limit)


@given(LENGTHS, FOOTPRINTS, LIMITS, st.none() | st.integers(20, 400))
def test_every_prompt_is_in_exactly_one_batch_and_the_longest_come_first(lengths, foot, limit, positions):
    batches = list(made(lengths, foot, limit, positions))
    order = [lengths[place] for batch in batches for place in batch]
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert order == sorted(lengths, reverse=True)


@given(LENGTHS, FOOTPRINTS, LIMITS)
def test_a_batch_stays_within_the_limit_unless_it_is_a_single_prompt(lengths, foot, limit):
    for batch in made(lengths, foot, limit):
        longest = max(lengths[place] for place in batch)
        assert len(batch) <= MAX_ROWS
        assert len(batch) == 1 or len(batch) * foot.row_bytes(longest, 20, num_beams=2) <= limit


@given(LENGTHS, LIMITS, st.integers(20, 400))
def test_prompts_short_of_room_share_a_batch_only_with_their_like(lengths, limit, positions):
    foot = Footprint(False, 1, 0, 1, 1, 1)
    for batch in made(lengths, foot, limit, positions):
        widths = {lengths[place] for place in batch}
        assert max(widths) + 20 <= positions or len(widths) == 1
    pair = Footprint(True, 1, 1, 1, 1, 1)  # a decoder of its own has all its positions for the answer
    assert list(made(lengths, pair, limit, positions)) == list(made(lengths, pair, limit))


@given(LENGTHS, FOOTPRINTS, LIMITS, st.integers(1, 9))
def test_what_does_not_fit_is_given_again_in_smaller_batches_and_none_is_lost(lengths, foot, limit, most):
    batches, done = made(lengths, foot, limit), []
    for batch in batches:
        if len(batch) > most:
            before = batches.limit_bytes
            batches.halve(batch)
            assert batches.limit_bytes < before
        else:
            done += batch
    assert sorted(done) == list(range(len(lengths)))


@given(st.integers(1, 1000), st.integers(1, 500), st.integers(1, 8), FOOTPRINTS)
def test_longer_prompts_longer_answers_and_more_beams_take_more(length, new, beams, foot):
    least = foot.row_bytes(length, new, num_beams=beams)
    assert foot.row_bytes(length + 1, new, num_beams=beams) > least
    assert foot.row_bytes(length, new + 1, num_beams=beams) > least
    assert foot.row_bytes(length, new, num_beams=beams + 1) > least


def test_the_number_that_memory_allows_is_a_power_of_two():
    foot = Footprint(False, 1, 0, 0, 0, 0)
    row = foot.row_bytes(10, 20, num_beams=2)
    for allowed, size in ((0.1, 1), (1, 1), (2.5, 2), (7.9, 4), (40, 32), (1e9, 64)):
        assert len(next(iter(made([10] * 100, foot, allowed * row)))) == size


def test_the_cache_is_measured_layers_shared_heads_and_format(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama", tmp_path)).eval()
    layers, key_heads, width, keys_and_values = 2, 2, 8, 2
    assert footprint(model).per_cached == layers * key_heads * width * keys_and_values * 4
    assert footprint(model.bfloat16()).per_cached == layers * key_heads * width * keys_and_values * 2
    assert footprint(model).per_source == 0 and not footprint(model).is_encoder_decoder


@pytest.mark.parametrize("make", [tiny_t5, tiny_bart])
def test_both_caches_of_an_encoder_decoder_are_measured(make):
    foot = footprint(make())
    layers, heads, width, keys_and_values = 2, 4, 8, 2
    assert foot.is_encoder_decoder
    assert foot.per_cached == layers * heads * width * keys_and_values * 4
    assert foot.per_source == foot.per_cached + 32 * 4


def test_memory_at_hand_is_a_share_of_what_is_there():
    assert 0 < bytes_at_hand(torch.device("cpu")) < math.inf
