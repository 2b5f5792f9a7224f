"""Batches: labels are the next trained token, whatever the shape; padding is masked by position."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fledge.data.collate import collate
from fledge.data.rows import Row


@st.composite
def rows(draw):
    found = []
    for _ in range(draw(st.integers(1, 5))):
        length = draw(st.integers(1, 9))
        ids = draw(st.lists(st.integers(0, 4), min_size=length, max_size=length))
        trained = draw(st.lists(st.booleans(), min_size=length, max_size=length))
        found.append(Row(np.array(ids, dtype=np.int32), np.array(trained, dtype=np.bool_)))
    return found


def wanted(row):
    """Pairs of position and label that a row asks for."""
    return [(place - 1, int(row.input_ids[place])) for place in range(1, len(row.input_ids)) if row.trained[place]]


def predicted(batch, positions):
    """Pairs of position and label that a batch asks for at these positions, counted from the first of them."""
    pairs = zip(batch.sources.tolist(), batch.targets.tolist(), strict=True)
    return [(place - positions.start, target) for place, target in pairs if place in positions]


@given(rows(), st.integers(0, 4))
def test_packed_and_padded_hold_the_same_rows_and_labels(found, pad_id):
    indices = list(range(10, 10 + len(found)))
    packed = collate(found, indices, is_packed=True, pad_id=pad_id)
    padded = collate(found, indices, is_packed=False, pad_id=pad_id)
    start, width = 0, padded.input_ids.shape[1]
    for number, row in enumerate(found):
        length = len(row.input_ids)
        assert packed.input_ids[0, start : start + length].tolist() == row.input_ids.tolist()
        assert padded.input_ids[number, :length].tolist() == row.input_ids.tolist()
        assert packed.position_ids[0, start : start + length].tolist() == list(range(length))
        assert padded.position_ids[number, :length].tolist() == list(range(length))
        assert predicted(packed, range(start, start + length)) == wanted(row)
        assert predicted(padded, range(number * width, (number + 1) * width)) == wanted(row)
        start += length
    supervised = sum(len(wanted(row)) for row in found)
    assert packed.supervised_tokens == padded.supervised_tokens == supervised
    assert packed.num_tokens == padded.num_tokens == start
    assert packed.lengths == padded.lengths == tuple(len(row.input_ids) for row in found)
    assert packed.rows == tuple(indices)
    assert packed.attention_mask is None
    if padded.attention_mask is None:
        assert len(set(padded.lengths)) == 1
    else:
        assert padded.attention_mask.sum(dim=1).tolist() == list(padded.lengths)
