"""Rows of an encoder-decoder into one micro-batch: sources for the encoder, targets moved by one for the decoder."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fledge.data.rows import Batch, EncoderSide, Row
from fledge.data.share import lay_out

Ids = NDArray[np.int32]


def collate_pairs(rows: Sequence[Row], indices: Sequence[int], *, is_packed: bool, pad_id: int, start_id: int) -> Batch:
    """One micro-batch of `rows`, which are `indices` of the store, each a source and then a target.

    The decoder reads `start_id` and the target without its last token, and predicts every token of the target (the
    shift of transformers' own models). packed: sources in one row of the encoder's side and decoder inputs in one row
    of the batch, documents in the same order. padded: one row each on both sides, `pad_id` on the right.
    """
    assert len(rows) == len(indices) > 0
    stops = [int(np.argmax(row.trained)) for row in rows]
    assert all(row.trained[stop:].all() and stop for row, stop in zip(rows, stops, strict=True)), "a source, a target"
    sources = [row.input_ids[:stop] for row, stop in zip(rows, stops, strict=True)]
    targets = [row.input_ids[stop:] for row, stop in zip(rows, stops, strict=True)]
    inputs = [np.concatenate([[start_id], target[:-1]]).astype(np.int32) for target in targets]
    encoder = EncoderSide(*_side(sources, is_packed=is_packed, pad_id=pad_id))
    input_ids, position_ids, mask, lengths = _side(inputs, is_packed=is_packed, pad_id=pad_id)
    places = torch.arange(input_ids.numel())
    return Batch(
        input_ids=input_ids,
        sources=places if mask is None else places[mask.view(-1) == 1],
        targets=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        position_ids=position_ids,
        attention_mask=mask,
        lengths=lengths,
        rows=tuple(indices),
        is_packed=is_packed,
        num_tokens=sum(len(row.input_ids) for row in rows),
        segments=lay_out(inputs, share=False).segments if is_packed else (),
        encoder=encoder,
    )


def _side(
    parts: Sequence[Ids], *, is_packed: bool, pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[int, ...]]:
    """Ids, positions, mask (all [B, T] int64, the mask None where nothing is padded) and lengths of one side."""
    lengths = tuple(len(part) for part in parts)
    if is_packed:
        ids = np.concatenate(parts).astype(np.int64)[None]
        positions = np.concatenate([np.arange(length) for length in lengths])[None]
        return torch.from_numpy(ids), torch.from_numpy(positions), None, lengths
    shape = (len(parts), max(lengths))
    ids = np.full(shape, pad_id, dtype=np.int64)
    real = np.arange(shape[1]) < np.array(lengths)[:, None]
    for line, part in enumerate(parts):
        ids[line, : len(part)] = part
    positions = np.where(real, np.arange(shape[1]), 0)
    mask = None if real.all() else torch.from_numpy(real.astype(np.int64))
    return torch.from_numpy(ids), torch.from_numpy(positions), mask, lengths
