"""Micro-batches of each step: which rows, on which rank, in which shape. Pure functions of the step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fledge.data.collate import collate, collate_trunk
from fledge.data.collate_pairs import collate_pairs
from fledge.data.pack import plan_micro_batches, plan_shared, share_of_rank
from fledge.data.rows import Batch, Row, TrunkUse
from fledge.data.trunk import Trunk, plan_step


class Rows(Protocol):
    """Tokenised rows by index."""

    @property
    def lengths(self) -> NDArray[np.int32]: ...
    def row(self, index: int) -> Row: ...
    def __len__(self) -> int: ...


class Order(Protocol):
    """Which rows a step takes."""

    def rows_of_step(self, step: int) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class OneStep:
    """Rows in memory, all of which the only step takes: both Rows and Order."""

    found: tuple[Row, ...]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """[rows]"""
        return np.array([len(row.input_ids) for row in self.found], dtype=np.int32)

    def row(self, index: int) -> Row:
        """The row."""
        return self.found[index]

    def rows_of_step(self, step: int) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(len(self.found)))

    def __len__(self) -> int:
        return len(self.found)


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is computed at once; changes time and memory, never the result."""

    limit_tokens: int | None
    limit_rows: int | None
    is_packed: bool
    pad_id: int
    share: bool = False
    """Whether rows of a packed micro-batch compute what they begin with in common once."""
    grain: int = 1
    """What the number of positions is rounded up to when they are computed."""
    decoder_start_id: int | None = None
    """What the decoder of an encoder-decoder starts with; None for a causal model. The limit counts a row's source and
    target together, as they are stored; nothing is shared, for a source is read in both directions.
    """
    has_trunk: bool = False
    """Whether, where rows share, the micro-batches of a step also do (trunk.py)."""


@dataclass(frozen=True, slots=True)
class BatchSource:
    """The micro-batches of one rank."""

    rows: Rows
    order: Order
    shape: Shape
    rank: int
    world_size: int

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of `step`, which counts from 1."""
        mine = self._mine(self.order.rows_of_step(step))
        trunk, groups = self._plan(mine, has_trunk=self.shape.has_trunk)
        return [self._collate(group) for group in groups] if trunk is None else list(self._on(trunk, groups))

    def rows_in(self, step: int) -> int:
        """Rows of `step` over all ranks."""
        return len(self.order.rows_of_step(step))

    def single(self, index: int) -> Batch:
        """One row alone."""
        return self._collate([index])

    def everything(self, limit: int | None) -> Iterator[Batch]:
        """This rank's share of all rows, or of the first `limit`, in order."""
        count = len(self.rows) if limit is None else min(limit, len(self.rows))
        block = 256  # rows planned at once, so that memory does not grow with the number of rows
        for start in range(0, count, block):
            mine = self._mine(range(start, min(start + block, count)))
            yield from (self._collate(group) for group in self._plan(mine, has_trunk=False)[1])

    def _mine(self, indices: Sequence[int]) -> list[int]:
        """This rank's of the rows `indices`."""
        lengths = [int(self.rows.lengths[index]) for index in indices]
        mine = share_of_rank(lengths, rank=self.rank, world_size=self.world_size)
        return [indices[position] for position in mine]

    def _plan(self, indices: Sequence[int], *, has_trunk: bool) -> tuple[Trunk | None, list[list[int]]]:
        """The rows `indices` in groups, and with `has_trunk` what all of these begin with where that pays."""
        shape, trunk = self.shape, None
        is_shared = shape.share and shape.decoder_start_id is None and shape.limit_rows is None
        if is_shared and shape.limit_tokens is not None and indices:
            rows = [self.rows.row(index) for index in indices]
            if has_trunk:
                trunk, groups = plan_step(rows, limit_tokens=shape.limit_tokens, grain=shape.grain)
            else:
                ids = [row.input_ids for row in rows]
                groups = plan_shared(ids, limit_tokens=shape.limit_tokens, grain=shape.grain)
        else:
            groups = plan_micro_batches(
                [int(self.rows.lengths[index]) for index in indices],
                limit_tokens=shape.limit_tokens,
                limit_rows=shape.limit_rows,
                is_packed=shape.is_packed,
            )
        return trunk, [[indices[position] for position in group] for group in groups]

    def _on(self, trunk: Trunk, groups: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Micro-batches that begin with one trunk."""
        for number, group in enumerate(groups):
            use = TrunkUse(trunk.num_positions, is_first=number == 0, is_last=number == len(groups) - 1)
            yield collate_trunk([self.rows.row(index) for index in group], group, trunk=trunk, use=use)

    def _collate(self, indices: Sequence[int]) -> Batch:
        shape, rows = self.shape, [self.rows.row(index) for index in indices]
        if shape.decoder_start_id is not None:
            start = shape.decoder_start_id
            return collate_pairs(rows, indices, is_packed=shape.is_packed, pad_id=shape.pad_id, start_id=start)
        return collate(rows, indices, is_packed=shape.is_packed, pad_id=shape.pad_id, share=shape.share)
