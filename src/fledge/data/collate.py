"""Rows into one micro-batch of tensors, labels shifted, padding masked by position."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fledge.data.rows import IGNORED, Batch, Row


def collate(rows: Sequence[Row], indices: Sequence[int], *, is_packed: bool, pad_id: int) -> Batch:
    """One micro-batch of `rows`, which are `indices` of the store.

    packed: the rows one after the other in one row of the batch. padded: one row each, `pad_id` on the right; it is
    known by its position, so any id will do. A row's last position has no label, so rows never meet in the loss.
    """
    assert len(rows) == len(indices) > 0
    lengths = tuple(len(row.input_ids) for row in rows)
    if is_packed:
        shape = (1, sum(lengths))
        starts = [(0, int(start)) for start in np.concatenate([[0], np.cumsum(lengths)[:-1]])]
    else:
        shape = (len(rows), max(lengths))
        starts = [(number, 0) for number in range(len(rows))]
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    real = np.zeros(shape, dtype=np.int64)
    for row, length, (line, start) in zip(rows, lengths, starts, strict=True):
        here = slice(start, start + length)
        input_ids[line, here] = row.input_ids
        labels[line, here] = _labels(row)
        position_ids[line, here] = np.arange(length)
        real[line, here] = 1
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        labels=torch.from_numpy(labels),
        position_ids=torch.from_numpy(position_ids),
        attention_mask=None if real.all() else torch.from_numpy(real),
        lengths=lengths,
        rows=tuple(indices),
        is_packed=is_packed,
        num_tokens=sum(lengths),
        supervised_tokens=int((labels != IGNORED).sum()),
    )


def _labels(row: Row) -> NDArray[np.int64]:
    """[length] what each position must predict: the next token where it is trained."""
    labels = np.full(len(row.input_ids), IGNORED, dtype=np.int64)
    labels[:-1] = np.where(row.trained[1:], row.input_ids[1:], IGNORED)
    return labels
