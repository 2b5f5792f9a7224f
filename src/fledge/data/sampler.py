"""The order of rows: which rows each optimiser step takes, a pure function of seed, epoch and position."""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """A random generator for one purpose: the same for the same arguments, unrelated for others (Philox)."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


class RowOrder:
    """Rows of a mixture in the order of training.

    Rows are numbered through the sources: source 0 first. A source is an endless stream, one seeded permutation of its
    rows after another; an epoch takes the next round(size * weight) of it, at least one, so that over epochs each row
    comes `weight` times an epoch and a fraction takes other rows each time. The epoch is then shuffled as one.

    Without `shuffle` a stream is the rows in their own order, again and again, and an epoch is what it takes of the
    first source, then of the second, and so on.
    """

    def __init__(
        self,
        source_sizes: Sequence[int],
        weights: Sequence[float],
        *,
        seed: int,
        rows_per_step: int,
        shuffle: bool = True,
    ) -> None:
        assert len(source_sizes) == len(weights)
        assert rows_per_step >= 1
        self._sizes = tuple(source_sizes)
        self._counts = tuple(
            max(round(size * weight), 1) if size else 0 for size, weight in zip(source_sizes, weights, strict=True)
        )
        self._seed = seed
        self._rows_per_step = rows_per_step
        self._is_shuffled = shuffle
        assert self.rows_per_epoch > 0
        self._epoch = lru_cache(maxsize=2)(self._rows_of_epoch)  # a cache of a pure function, not a state

    @property
    def rows_per_epoch(self) -> int:
        return sum(self._counts)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last may be smaller than the others."""
        return math.ceil(self.rows_per_epoch / self._rows_per_step)

    def total_steps(self, num_epochs: float, max_steps: int | None) -> int:
        """Steps of the whole training: `max_steps` decides where given."""
        if max_steps is not None:
            return max_steps
        return max(1, math.ceil(round(num_epochs * self.steps_per_epoch, 6)))

    def rows_of_step(self, step: int) -> tuple[int, ...]:
        """Rows of `step`, which counts from 1; an epoch follows the other without end."""
        assert step >= 1
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        start = within * self._rows_per_step
        return tuple(self._epoch(epoch)[start : start + self._rows_per_step].tolist())

    def _rows_of_epoch(self, epoch: int) -> NDArray[np.int64]:
        first_rows = np.concatenate([[0], np.cumsum(self._sizes)]).astype(np.int64)
        taken = [first_rows[source] + self._taken(source, epoch) for source, count in enumerate(self._counts) if count]
        rows = np.concatenate(taken)
        if len(taken) == 1 or not self._is_shuffled:
            return rows
        return generator(self._seed, "mixture", epoch).permutation(rows)

    def _taken(self, source: int, epoch: int) -> NDArray[np.int64]:
        """Rows that an epoch takes of one source's stream."""
        size, count = self._sizes[source], self._counts[source]
        start, stop = epoch * count, (epoch + 1) * count
        passes = range(start // size, (stop - 1) // size + 1)
        stream = np.concatenate([self._pass(source, one) for one in passes])
        offset = start - passes[0] * size
        return stream[offset : offset + count]

    def _pass(self, source: int, number: int) -> NDArray[np.int64]:
        """All rows of one source, once."""
        size = self._sizes[source]
        return (
            generator(self._seed, "order", source, number).permutation(size) if self._is_shuffled else np.arange(size)
        )
