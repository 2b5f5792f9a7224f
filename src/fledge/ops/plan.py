"""Which documents of a packed row attend together, and in which tiles.

Shapes: K key/value heads, G query heads for each of them, S keys of a tile. Widths are rounded up (grain.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fledge.ops.grain import GRAIN, rounded

SCORES = 3_000_000
"""Scores held at once, in number; 12 MB in float32. Smaller tiles stay in cache and were slower (bench/log.md)."""
TOGETHER = 4
"""Documents of one size that share one product; either so many or one alone, to keep the shapes few."""


@dataclass(frozen=True, slots=True)
class Document:
    """Positions [start, end) of the packed row, which continue the ranges of `prefix`, in order."""

    start: int
    end: int
    prefix: tuple[tuple[int, int], ...] = ()
    is_across: bool = False
    """Whether the queries see `prefix` alone, which lies in another row."""

    @property
    def prefix_length(self) -> int:
        return sum(end - start for start, end in self.prefix)

    @property
    def keys(self) -> tuple[tuple[int, int], ...]:
        """The ranges that are seen, in order."""
        return self.prefix if self.is_across else (*self.prefix, (self.start, self.end))

    @property
    def num_keys(self) -> int:
        return sum(end - start for start, end in self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What attention is, apart from its weights."""

    kv_heads: int
    groups: int
    """Query heads for each key/value head."""
    head_dim: int
    scale: float
    softcap: float | None = None
    """cap * tanh(score / cap), as Gemma 2 does."""
    window: int | None = None
    """Keys in sight of a query, itself among them; None for all before it."""
    alibi: Callable[[int, torch.device], torch.Tensor] | None = None
    """A length S and a device -> [K*G,S] float32, what is added to the scores by key position, as ALiBi does
    (arXiv 2108.12409)."""
    relative: Callable[[torch.Tensor], torch.Tensor] | None = None
    """How far keys lie after queries [W,S] int64 -> [K*G,W,S] float32, what is added to the scores (T5)."""


@dataclass(frozen=True, slots=True)
class Group:
    """Documents that continue as long a prefix and have, rounded up, as many positions of their own."""

    documents: tuple[Document, ...]
    prefix: int
    """Positions that come before a document's own; 0 where every key is seen."""
    width: int
    """A document's own positions, rounded up."""
    visible: tuple[int, ...] | None = None
    """Of each document the keys that every query sees; None where it sees those before it."""

    @property
    def keys(self) -> int:
        """Keys that are multiplied, rounded up; those past a document's last one are zeros and out of sight."""
        return rounded(self.prefix + self.width if self.visible is None else max(self.visible))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How the documents of one micro-batch are grouped; made once, used by every layer."""

    groups: tuple[Group, ...]
    masks: dict[object, torch.Tensor] = field(default_factory=dict)
    layouts: dict[object, Any] = field(default_factory=dict)
    """What the fused kernels are told of it."""


def plan_attention(documents: Sequence[Document], *, heads: int, is_causal: bool = True) -> Plan:
    """Documents with as long a prefix and as many positions go together; ancestors come before descendants. Where
    every key is seen, those with, rounded up, as many keys do.
    """
    alike: dict[tuple[int, int, int], list[Document]] = {}
    for document in sorted(documents, key=lambda d: (d.prefix_length, d.end - d.start, d.start)):
        width = rounded(document.end - document.start)
        kind = (document.prefix_length, width, 0) if is_causal else (0, width, rounded(document.num_keys))
        alike.setdefault(kind, []).append(document)
    groups = []
    for (prefix, width, keys), found in alike.items():
        is_small = TOGETHER * heads * width * (keys or rounded(prefix + width)) <= SCORES
        whole = len(found) - len(found) % TOGETHER if is_small else 0
        parts = [found[n : n + TOGETHER] for n in range(0, whole, TOGETHER)] + [[d] for d in found[whole:]]
        groups += [Group(tuple(p), prefix, width, None if is_causal else tuple(d.num_keys for d in p)) for p in parts]
    return Plan(tuple(groups))


@dataclass(frozen=True, slots=True)
class Tile:
    """Queries [first, last) of a group's documents and the keys [low, high) that they see."""

    group: Group
    first: int
    last: int
    low: int
    high: int


def tiles(group: Group, shape: Shape) -> Iterator[Tile]:
    """The queries of a group a few at a time, so that no more than SCORES scores are held at once."""
    across = len(group.documents) * shape.kv_heads * shape.groups * group.keys
    widest = max(GRAIN, SCORES // across // GRAIN * GRAIN)
    for first in range(0, group.width, widest):
        last = min(first + widest, group.width)
        if group.visible is not None:
            yield Tile(group, first, last, 0, group.keys)
            continue
        low = 0 if shape.window is None else max(0, group.prefix + first - shape.window + 1)
        yield Tile(group, first, last, low // GRAIN * GRAIN, min(rounded(group.prefix + last), group.keys))
