"""The loss of a model on one batch, computed by the engine."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fledge.data.rows import Batch
from fledge.data.share import Segment
from fledge.engine.packed import Packed, Side
from fledge.engine.run import Engine
from fledge.ops.plan import Document


@dataclass(frozen=True, slots=True)
class FastLoss:
    """Sum of token losses. Takes packed batches, with what their documents begin with shared or not."""

    announce: Callable[[Batch], None]
    """Told of each batch before it is computed: dropout needs to know its rows."""
    engine: Engine

    def __call__(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self.announce(batch)
        return self.engine.loss(as_packed(batch))


def as_packed(batch: Batch) -> Packed:
    """The batch as the engine takes it."""
    assert batch.is_packed
    encoder, trunk = batch.encoder, batch.trunk
    documents = _documents(batch.segments) if encoder is None else _one_by_one(batch.lengths)
    return Packed(
        side=Side(batch.input_ids[0], batch.position_ids[0], documents),
        sources=batch.sources,
        targets=batch.targets,
        which=batch.which,
        encoder=None
        if encoder is None
        else Side(encoder.input_ids[0], encoder.position_ids[0], _one_by_one(encoder.lengths)),
        trunk=0 if trunk is None else trunk.positions,
        opens=trunk is not None and trunk.is_first,
        closes=trunk is not None and trunk.is_last,
    )


def _one_by_one(lengths: Sequence[int]) -> tuple[Document, ...]:
    return tuple(Document(*span) for span in itertools.pairwise(itertools.accumulate(lengths, initial=0)))


def _documents(segments: tuple[Segment, ...]) -> tuple[Document, ...]:
    ends = [(part.start, part.start + part.last - part.first) for part in segments]
    return tuple(
        Document(*end, prefix=tuple(ends[number] for number in part.before))
        for end, part in zip(ends, segments, strict=True)
    )
