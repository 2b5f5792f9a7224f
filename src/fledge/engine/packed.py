"""A micro-batch as the engine takes it, and its row made round.

Shapes: T packed positions, N supervised tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fledge.ops.grain import GRAIN, rounded
from fledge.ops.plan import Document


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """A packed row."""

    input_ids: torch.Tensor
    """[T] int64"""
    position_ids: torch.Tensor
    """[T] int64, from 0 in each document"""
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """One micro-batch."""

    side: Side
    sources: torch.Tensor
    """[M] int64, rising: the positions that something is predicted from, each once"""
    targets: torch.Tensor
    """[N] int64: the tokens that must be predicted"""
    which: torch.Tensor | None = None
    """[N] int64, rising: which of `sources` predicts each target; None where they are one to one"""
    encoder: Side | None = None
    """What an encoder reads: as many documents, each of which the document of the same place attends to."""
    trunk: int = 0
    """Positions, the first ones, that all micro-batches of a step begin with; nothing is predicted from them."""
    opens: bool = False
    """Whether it is the step's first micro-batch, which computes the trunk, for the others too"""
    closes: bool = False
    """or its last one, whose backward pass is the trunk's too."""


def whole_grains(side: Side, grain: int, *, start: int = 0) -> Side:
    """The row, whose first position is `start`, with positions of a document that nothing looks at, so that their
    number is a round one.
    """
    count = side.input_ids.shape[0]
    extra = rounded(count, grain) - count
    if not extra:
        return side
    return Side(
        F.pad(side.input_ids, (0, extra)),
        F.pad(side.position_ids, (0, extra)),
        (*side.documents, Document(start + count, start + count + extra)),
    )


def parted(side: Side, positions: int, *, grain: int) -> tuple[Side, Side]:
    """The trunk, the first `positions` of a row, and what lies beyond, each rounded up. The documents beyond count
    their positions from the start of the trunk, which attention sees in one row with them.
    """
    of_trunk = tuple(document for document in side.documents if document.start < positions)
    trunk = whole_grains(Side(side.input_ids[:positions], side.position_ids[:positions], of_trunk), GRAIN)
    start = trunk.input_ids.shape[0]
    further = tuple(_moved(d, start - positions, beyond=positions) for d in side.documents if d.start >= positions)
    own = Side(side.input_ids[positions:], side.position_ids[positions:], further)
    return trunk, whole_grains(own, grain, start=start)


def _moved(document: Document, by: int, *, beyond: int) -> Document:
    """The document, and of its prefix what lies beyond, by so many positions."""
    prefix = tuple((a + by, b + by) if a >= beyond else (a, b) for a, b in document.prefix)
    return Document(document.start + by, document.end + by, prefix)
