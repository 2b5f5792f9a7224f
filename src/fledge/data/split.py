"""Which rows are held out for validation: a pure function of the seed and the rows' number."""

import numpy as np
from numpy.typing import NDArray

from fledge.data.sampler import generator
from fledge.errors import DataError


def hold_out(parents: NDArray[np.int64], *, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the training rows and of the validation rows, both rising.

    Rows with the same parent (pieces of one row) stay together. At least one row is held out and at least one is not.
    Raises DataError where there is but one row.
    """
    rows, place = np.unique(parents, return_inverse=True)
    if len(rows) < 2:
        cure = "write data.validation: null, or give it a source of its own"
        raise DataError("one row cannot be divided into training and validation", where="data.validation", cure=cure)
    count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
    held = np.zeros(len(rows), dtype=np.bool_)
    held[generator(seed, "split").permutation(len(rows))[:count]] = True
    is_held = held[place]
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)
