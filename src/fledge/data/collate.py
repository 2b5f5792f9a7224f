"""Rows into one micro-batch of tensors: what each position must predict, padding known by position."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from fledge.data.rows import Batch, Row, TrunkUse
from fledge.data.share import Ids, Layout, Segment, lay_out
from fledge.data.trunk import Trunk, lay_out_beyond


def collate(rows: Sequence[Row], indices: Sequence[int], *, is_packed: bool, pad_id: int, share: bool = False) -> Batch:
    """One micro-batch of `rows`, which are `indices` of the store.

    packed: the rows one after the other in one row of the batch or, where `share`, with what they begin with in
    common once. padded: one row each, `pad_id` on the right; it is known by its position, so any id will do. A row's
    last position predicts nothing, so rows never meet in the loss.
    """
    assert len(rows) == len(indices) > 0
    if is_packed:
        return _packed(rows, indices, lay_out([row.input_ids for row in rows], share=share))
    return _padded(rows, indices, pad_id=pad_id)


def collate_trunk(rows: Sequence[Row], indices: Sequence[int], *, trunk: Trunk, use: TrunkUse) -> Batch:
    """One packed micro-batch that begins with the trunk of its step, whether its rows go through all of it or not."""
    layout = lay_out_beyond([row.input_ids for row in rows], trunk)
    return replace(_packed(rows, indices, layout, beyond=trunk.texts), trunk=use)


def _packed(rows: Sequence[Row], indices: Sequence[int], layout: Layout, *, beyond: Sequence[Ids] = ()) -> Batch:
    """The layout's segments count the rows, and then the texts `beyond` them."""
    texts, width = [*(row.input_ids for row in rows), *beyond], layout.num_positions
    input_ids, position_ids = np.zeros(width, dtype=np.int64), np.zeros(width, dtype=np.int64)
    for part in layout.segments:
        here = slice(part.start, part.start + part.last - part.first)
        input_ids[here] = texts[part.row][part.first : part.last]
        position_ids[here] = np.arange(part.first, part.last)
    sources, targets = [], []
    for row, path in zip(rows, layout.paths, strict=True):
        places = np.concatenate([_places(layout.segments[number]) for number in path])
        before = np.flatnonzero(row.trained[1:])
        sources.append(places[before])
        targets.append(row.input_ids[before + 1])
    source, target = np.concatenate(sources), np.concatenate(targets)
    order = np.argsort(source, kind="stable")
    # settled here and not where it is computed: how many differ is data, which a device would have to be waited for
    once, which = np.unique(source[order].astype(np.int64), return_inverse=True)
    return Batch(
        input_ids=torch.from_numpy(input_ids)[None],
        sources=torch.from_numpy(once),
        targets=torch.from_numpy(target[order].astype(np.int64)),
        position_ids=torch.from_numpy(position_ids)[None],
        attention_mask=None,
        lengths=tuple(len(row.input_ids) for row in rows),
        rows=tuple(indices),
        is_packed=True,
        num_tokens=sum(len(row.input_ids) for row in rows),
        segments=layout.segments,
        which=None if len(once) == len(source) else torch.from_numpy(which),
    )


def _places(part: Segment) -> NDArray[np.int64]:
    """Where the tokens of a segment stand in the packed row."""
    return np.arange(part.start, part.start + part.last - part.first)


def _padded(rows: Sequence[Row], indices: Sequence[int], *, pad_id: int) -> Batch:
    lengths = tuple(len(row.input_ids) for row in rows)
    shape = (len(rows), max(lengths))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    position_ids, real = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    sources, targets = [], []
    for line, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        input_ids[line, :length] = row.input_ids
        position_ids[line, :length] = np.arange(length)
        real[line, :length] = 1
        before = np.flatnonzero(row.trained[1:])
        sources.append(before + line * shape[1])
        targets.append(row.input_ids[before + 1].astype(np.int64))
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        sources=torch.from_numpy(np.concatenate(sources)),
        targets=torch.from_numpy(np.concatenate(targets)),
        position_ids=torch.from_numpy(position_ids),
        attention_mask=None if real.all() else torch.from_numpy(real),
        lengths=lengths,
        rows=tuple(indices),
        is_packed=False,
        num_tokens=sum(lengths),
    )
