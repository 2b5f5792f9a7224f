"""The tables of the attention kernels: every query of every document visits every range that it sees, once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fledge.ops.fused import layout
from fledge.ops.fused.layout import lay_out
from fledge.ops.plan import Document


@st.composite
def packed(draw):
    """A prefix that some documents continue, and documents of their own."""
    ends = draw(st.lists(st.integers(1, 90), min_size=1, max_size=12))
    documents, at = [], 0
    prefix = ((0, ends[0]),)
    for number, length in enumerate(ends):
        shares = number > 0 and draw(st.booleans())
        documents.append(Document(at, at + length, prefix if shares else ()))
        at += length
    return documents


@given(packed(), st.integers(1, 4), st.sampled_from([1, 5, 128]))
def test_every_pair_is_visited_once(documents, groups, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "STEPS", steps)
        found = lay_out(documents, tile=(16, 8), groups=groups, is_causal=True, device=torch.device("cpu"))
    spans, viewers = found.keys.tolist(), found.viewers.tolist()
    visits, slots = [], []
    for number, first, low, high, slot in found.key_tiles.tolist():
        start, length, _ = spans[number]
        rows = range(start + first, start + min(first + 8, length))
        visits += [(row, viewers[pair // groups][0], pair % groups) for pair in range(low, high) for row in rows]
        slots += [(number, first, slot)] if slot >= 0 else []
    wanted = [
        (row, document.start, group)
        for document in documents
        for begin, end in document.keys
        for row in range(begin, end)
        for group in range(groups)
    ]
    assert sorted(visits) == sorted(wanted)
    summed = [(number, first, slot) for number, first, low, high in found.joined.tolist() for slot in range(low, high)]
    assert sorted(summed) == sorted(slots)
    assert sorted(slot for _, _, slot in slots) == list(range(found.slots))


def test_what_one_document_sees_is_never_cut():
    found = lay_out([Document(0, 5000)], tile=(64, 64), groups=71, is_causal=True, device=torch.device("cpu"))
    assert found.slots == 0
    assert found.key_tiles[:, 4].unique().tolist() == [-1]


def test_what_many_see_is_cut_into_parts_of_like_size():
    documents = [Document(0, 64), *[Document(64 + 64 * n, 128 + 64 * n, ((0, 64),)) for n in range(300)]]
    found = lay_out(documents, tile=(64, 64), groups=4, is_causal=True, device=torch.device("cpu"))
    work = [high - low for _, _, low, high, _ in found.key_tiles.tolist()]
    assert max(work) == layout.STEPS
    assert found.slots == -(-301 * 4 // layout.STEPS)
