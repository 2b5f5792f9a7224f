"""Angles that depend on a row's length: each row's as if it were alone and the first that the model sees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from fledge.models.rotary import angles_by_row, angles_change

ORIGINAL = 16
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": ORIGINAL}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 4.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 4.0, 8.0, 16.0],
    "original_max_position_embeddings": ORIGINAL,
}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}


def rotary(kind: dict, *, by_row: bool = True) -> LlamaRotaryEmbedding:
    module = LlamaRotaryEmbedding(LlamaConfig(**SMALL, rope_parameters=dict(kind)))
    if by_row:
        angles_by_row(module)
    return module


def alone(kind: dict, length: int) -> torch.Tensor:
    """What the library gives a row that a fresh module sees."""
    x = torch.empty(0)
    return torch.cat(rotary(kind, by_row=False)(x, torch.arange(length)[None]), dim=-1)[0]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([DYNAMIC, LONG]), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_rows_packed_or_padded_have_the_angles_that_each_has_alone(kind, lengths):
    module, x = rotary(kind), torch.empty(0)
    wanted = torch.cat([alone(kind, length) for length in lengths])
    packed = torch.cat(module(x, torch.cat([torch.arange(n) for n in lengths])[None]), dim=-1)[0]
    assert torch.equal(packed, wanted)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.arange(length)
    padded = torch.cat(module(x, ids), dim=-1)
    assert torch.equal(torch.cat([row[:n] for row, n in zip(padded, lengths, strict=True)]), wanted)


@pytest.mark.parametrize("kind", [DYNAMIC, LONG])
def test_what_was_seen_before_changes_nothing(kind):
    module, x = rotary(kind), torch.empty(0)
    for length in (40, 20, 9, 60, 17):
        assert torch.equal(torch.cat(module(x, torch.arange(length)[None]), dim=-1)[0], alone(kind, length))


def test_the_library_still_carries_the_longest_row_on():
    """When this fails, transformers forgets the rows before, and `_Start` can go."""
    module, x = rotary(DYNAMIC, by_row=False), torch.empty(0)
    module(x, torch.arange(60)[None])
    assert not torch.equal(torch.cat(module(x, torch.arange(20)[None]), dim=-1)[0], alone(DYNAMIC, 20))


@pytest.mark.parametrize(
    ("kind", "longest", "changes"), [(DYNAMIC, 60, True), (LONG, 60, True), (DYNAMIC, 16, False), (PLAIN, 500, False)]
)
def test_whether_angles_change_is_asked_of_the_module(kind, longest, changes):
    assert angles_change(rotary(kind), longest, device=torch.device("cpu")) is changes


def test_other_kinds_are_left_as_they_are():
    assert "forward" not in vars(rotary(PLAIN))
