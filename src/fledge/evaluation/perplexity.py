"""Loss and perplexity over rows, weighted by token as the training loss is."""

import math
from collections.abc import Callable, Iterable

import torch

from fledge.data.rows import Batch
from fledge.evaluation.mode import evaluating
from fledge.runtime.mesh import Mesh


def mean_loss(
    model: torch.nn.Module,
    batches: Iterable[Batch],
    *,
    loss_of: Callable[[torch.nn.Module, Batch], torch.Tensor],
    mesh: Mesh,
) -> tuple[float, int]:
    """Mean of -log p over the supervised tokens of all ranks' batches, and the number of those tokens.

    The model is left in the mode it was in; no gradient is kept.
    """
    device = next(model.parameters()).device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    with evaluating(model):
        for batch in batches:
            total[0] += loss_of(model, batch).double()
            total[1] += batch.supervised_tokens
    loss, tokens = mesh.sum(total).tolist()
    return (loss / tokens if tokens else math.nan), int(tokens)


def perplexity_of(loss: float) -> float:
    """exp(loss); infinity where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf
