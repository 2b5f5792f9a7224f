"""The values that pass through the data room: a rendered row, a tokenised row, a batch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

IGNORED = -100


@dataclass(frozen=True, slots=True)
class RawRow:
    """One record of a source: `number` counts from 1 (lines in a line format, rows elsewhere)."""

    number: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row as text. `spans` are the trained parts as half-open character ranges, in order, not touching."""

    text: str
    spans: tuple[tuple[int, int], ...]
    has_specials: bool
    """True where the text already holds its special tokens (a chat template's): none is put before it."""
    ends_turn: bool
    """True where an end-of-turn token must stand after the text unless the text ends with one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One tokenised row. Both arrays are [length]; `trained[t]` says that token t is a target."""

    input_ids: NDArray[np.int32]
    trained: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch.

    B rows of T positions; packed: B = 1 and `lengths` are the documents in order; padded: B = len(lengths) and
    position t of row b is real where t < lengths[b]. Labels are shifted already: labels[b, t] is what position t
    must predict, or -100.
    """

    input_ids: torch.Tensor
    """[B, T] int64"""
    labels: torch.Tensor
    """[B, T] int64"""
    position_ids: torch.Tensor
    """[B, T] int64, from 0 in each document"""
    attention_mask: torch.Tensor | None
    """[B, T] int64, 1 on real positions; None where there is no padding"""
    lengths: tuple[int, ...]
    """Tokens of each document."""
    rows: tuple[int, ...]
    """Index in the token store of each document."""
    is_packed: bool
    num_tokens: int
    """Real tokens, padding left out."""
    supervised_tokens: int
    """Labels that are not -100."""
