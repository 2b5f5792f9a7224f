"""Where the kernels of attention find what belongs together: tiles of queries and of keys, and what each must visit.

Documents that continue a shared prefix see it where it lies, so nothing is gathered: a document is a list of ranges of
keys, and a range of keys a list of the documents that see it. Positions count from the start of the whole document.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fledge.ops.plan import Document

Tables = Sequence[Sequence[tuple[int, ...]]]


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
    """[m,2] which span of `keys`, its first row"""
    keys: torch.Tensor
    """[s,5] a span of keys, and its first and last place in `viewers`"""
    viewers: torch.Tensor
    """[..,3] spans of queries"""
    reach: int
    """The most keys that a document sees."""


def lay_out(documents: Sequence[Document], *, tile: tuple[int, int], is_causal: bool, device: torch.device) -> Layout:
    """The tables for tiles of so many queries and so many keys, brought to the device in one piece."""
    seen: list[tuple[int, int, int]] = []
    viewers: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    heads: list[tuple[int, ...]] = []
    for document in documents:
        span = (document.start, document.end - document.start, document.prefix_length if is_causal else 0)
        first, position = len(seen), 0
        for start, end in document.keys:
            seen.append((start, end - start, position))
            viewers.setdefault(seen[-1], []).append(span)
            position += end - start
        heads.append((*span, first, len(seen)))
    keys: list[tuple[int, ...]] = []
    seeing: list[tuple[int, int, int]] = []
    for span, found in viewers.items():
        keys.append((*span, len(seeing), len(seeing) + len(found)))
        seeing += found
    tables: Tables = [_tiles(heads, tile[0]), heads, seen, _tiles(keys, tile[1]), keys, seeing]
    tiles_of_queries, about_documents, spans, tiles_of_keys, about_keys, viewing = _brought(tables, device)
    reach = max((document.num_keys for document in documents), default=0)
    return Layout(tiles_of_queries, about_documents, spans, tiles_of_keys, about_keys, viewing, reach)


def _tiles(spans: Sequence[tuple[int, ...]], size: int) -> list[tuple[int, int]]:
    """Those that have most to do come first, so that none of them is left for the end."""
    found = [(number, first) for number, span in enumerate(spans) for first in range(0, span[1], size)]
    return sorted(found, key=lambda at: -(spans[at[0]][4] - spans[at[0]][3]) * spans[at[0]][1])


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
    return [part[: len(found)].view(-1, len(table[0])) for part, found, table in sized]
