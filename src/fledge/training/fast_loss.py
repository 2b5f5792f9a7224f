"""The loss of a causal model on one batch, computed by the engine."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fledge.data.rows import Batch
from fledge.data.share import Segment
from fledge.engine.run import Engine, Packed
from fledge.ops.attention import Document


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
    return Packed(
        input_ids=batch.input_ids[0],
        position_ids=batch.position_ids[0],
        documents=_documents(batch.segments),
        sources=batch.sources,
        targets=batch.targets,
        are_sources_unique=batch.input_ids.shape[1] == batch.num_tokens,
    )


def _documents(segments: tuple[Segment, ...]) -> tuple[Document, ...]:
    ends = [(part.start, part.start + part.last - part.first) for part in segments]
    return tuple(
        Document(*end, prefix=tuple(ends[number] for number in part.before))
        for end, part in zip(ends, segments, strict=True)
    )
