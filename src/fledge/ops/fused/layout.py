"""Where the kernels of attention find what belongs together: tiles of queries and of keys, and what each must visit.

Documents that continue a shared prefix see it where it lies, so nothing is gathered: a document is a list of ranges of
keys, and a range of keys a list of the documents that see it. Positions count from the start of the whole document.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fledge.ops.plan import Document

Tables = Sequence[Sequence[tuple[int, ...]]]
Span = tuple[int, int, int]
STEPS = 128
"""Tiles of queries that one program visits for what several documents see."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """int32 tables. A span is (start, length, position of its first row)."""

    query_tiles: torch.Tensor
    """[n,2] which document, its first row"""
    documents: torch.Tensor
    """[d,5] a document's span, and its first and last place in `seen`"""
    seen: torch.Tensor
    """[..,3] spans of keys"""
    key_tiles: torch.Tensor
    """[m,5] which span of `keys`, its first row, its first and last pair of a viewer and one of the G query heads for a
    key head (viewer * G + head), and the slot for their sum: -1 where these are all who see it
    """
    joined: torch.Tensor
    """[n,4] of tiles with slots: which span of `keys`, its first row, its first and last slot"""
    keys: torch.Tensor
    """[s,3] spans of keys"""
    viewers: torch.Tensor
    """[..,3] spans of queries"""
    reach: int
    """The most keys that a document sees."""
    slots: int


def lay_out(
    documents: Sequence[Document], *, tile: tuple[int, int], groups: int, is_causal: bool, device: torch.device
) -> Layout:
    """The tables for tiles of so many queries and so many keys, brought to the device in one piece."""
    seen: list[Span] = []
    viewers: dict[Span, list[Span]] = {}
    heads: list[tuple[int, ...]] = []
    for document in documents:
        span = (document.start, document.end - document.start, document.prefix_length if is_causal else 0)
        first, position = len(seen), 0
        for start, end in document.keys:
            seen.append((start, end - start, position))
            viewers.setdefault(seen[-1], []).append(span)
            position += end - start
        heads.append((*span, first, len(seen)))
    seeing = [span for found in viewers.values() for span in found]
    key_tiles, joined = _tiles_of_keys(viewers, size=tile[1], groups=groups)
    tables: Tables = [_tiles_of_queries(heads, tile[0]), heads, seen, key_tiles, joined, list(viewers), seeing]
    reach = max((document.num_keys for document in documents), default=0)
    slots = max((tile[3] for tile in joined), default=0)
    queries, about, seeable, keys, parts, spans, views = _brought(tables, device)
    return Layout(queries, about, seeable, keys, parts, spans, views, reach, slots)


def _tiles_of_queries(heads: Sequence[tuple[int, ...]], size: int) -> list[tuple[int, int]]:
    """Those that have most to do come first, so that none of them is left for the end."""
    found = [(number, first) for number, span in enumerate(heads) for first in range(0, span[1], size)]
    return sorted(found, key=lambda at: -(heads[at[0]][4] - heads[at[0]][3]) * heads[at[0]][1])


def _tiles_of_keys(
    viewers: dict[Span, list[Span]], *, size: int, groups: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """`key_tiles`, those that have most to do first, and `joined`. What many documents see is cut by its viewers, or
    one program would go through them all while the others have long ended.
    """
    found: list[tuple[int, tuple[int, ...]]] = []
    joined: list[tuple[int, ...]] = []
    slot = first_viewer = 0
    for number, (span, seeing) in enumerate(viewers.items()):
        steps = [-(-viewer[1] // size) for viewer in seeing for _ in range(groups)]
        bounds = [0, *_cuts(steps), len(steps)] if len(seeing) > 1 else [0, len(steps)]
        is_cut = len(bounds) > 2
        for first in range(0, span[1], size):
            if is_cut:
                joined.append((number, first, slot, slot + len(bounds) - 1))
            for low, high in itertools.pairwise(bounds):
                pairs = first_viewer * groups + low, first_viewer * groups + high
                found.append((sum(steps[low:high]), (number, first, *pairs, slot if is_cut else -1)))
                slot += is_cut
        first_viewer += len(seeing)
    return [tile for _, tile in sorted(found, key=lambda item: -item[0])], joined


def _cuts(steps: Sequence[int]) -> list[int]:
    """Where to cut, so that each part takes about STEPS steps or is a single pair."""
    cuts, total = [], 0
    for number, count in enumerate(steps):
        if total and total + count > STEPS:
            cuts.append(number)
            total = 0
        total += count
    return cuts


def _brought(tables: Tables, device: torch.device) -> list[torch.Tensor]:
    """The tables on the device: one copy, from page-locked memory, which nothing waits for. Each begins at a multiple
    of 16 bytes, for a kernel is compiled anew for every table that does and every one that does not.
    """
    values = [[value for row in table for value in row] for table in tables]
    padded = [found + [0] * (-len(found) % 4) for found in values]
    flat = torch.tensor([value for found in padded for value in found], dtype=torch.int32)
    if device.type == "cuda":
        flat = flat.pin_memory()
    parts = flat.to(device, non_blocking=True).split([len(found) for found in padded])
    sized = zip(parts, values, tables, strict=True)
    return [part[: len(found)].view(len(table), -1) if table else part for part, found, table in sized]
