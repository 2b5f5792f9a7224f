"""The loss by the library's modules, joined with what attention and dropout must be told of each micro-batch."""

from fledge.adapters.dropout import DropoutKeys
from fledge.data.rows import Batch
from fledge.facts import ModelFacts
from fledge.models.documents import Documents
from fledge.training.loss import CausalLoss, PairLoss


def plain_loss(
    facts: ModelFacts, documents: Documents | None, *, keys: DropoutKeys | None = None
) -> CausalLoss | PairLoss:
    """The loss by the library's modules, which tells attention, and dropout where there is any, which rows are computed
    next.
    """

    def tell(batch: Batch) -> None:
        if documents is not None:
            documents.lengths = batch.lengths if batch.is_packed else None
        if keys is not None:
            announce(keys, batch)

    if facts.is_encoder_decoder:
        return PairLoss(tell)
    return CausalLoss(tell, needs_positions=facts.takes_positions, needs_mask=documents is None)


def announce(keys: DropoutKeys, batch: Batch) -> None:
    """Tell dropout which rows are computed next."""
    keys.rows, keys.lengths, keys.is_packed = batch.rows, batch.lengths, batch.is_packed
    keys.encoder_lengths = () if batch.encoder is None else batch.encoder.lengths


def alone_loss(facts: ModelFacts) -> CausalLoss | PairLoss:
    """The loss of single rows as plain transformers computes them: no positions are given, and no mask."""
    if facts.is_encoder_decoder:
        return PairLoss(lambda batch: None)
    return CausalLoss(lambda batch: None, needs_positions=False, needs_mask=False)
