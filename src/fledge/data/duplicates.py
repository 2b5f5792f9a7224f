"""Rows that are held out for validation and trained on all the same."""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fledge.data.store import TokenStore

_DIGEST_BYTES = 16


def count_repeated(validation: TokenStore, train: TokenStore) -> int:
    """How many rows of `validation` have the very tokens of some row of `train`.

    Memory is a digest of 16 bytes for each row of `validation`.
    """
    known = set(_digests(validation, train.lengths))
    trained = known.intersection(_digests(train, validation.lengths)) if known else set()
    return sum(row in trained for row in _digests(validation, train.lengths)) if trained else 0


def _digests(store: TokenStore, lengths: NDArray[np.int32]) -> Iterator[bytes]:
    """A digest of each row's tokens, of those rows that have one of `lengths`."""
    for place in np.flatnonzero(np.isin(store.lengths, lengths)):
        yield hashlib.blake2b(store.row(int(place)).input_ids.tobytes(), digest_size=_DIGEST_BYTES).digest()
