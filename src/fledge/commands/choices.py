"""Whether a model takes the highest of a row's scores where some are equal: which ones then depends on the width."""

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from fledge.commands.alone import Logits, Trial
from fledge.data.rows import Batch

Choice = tuple[int, int]
"""Among how many scores, and how many of them are taken."""
_TOPK = (torch.topk, torch.Tensor.topk)


def decided_by_width(trial: Trial, *, alone: Logits, together: Logits, is_packed: bool) -> str | None:
    """In words, where the number of scores among which a row's are ranked grows with the rows beside it and some of
    them are equal; None where that is not so.

    torch.topk promises no order of equal scores, and in practice it depends on how many there are. An indexer whose
    scores are sums of relu gives zeros, few enough that none need lie at the edge in the rows of a proof.
    """
    lengths = [len(row.input_ids) for row in trial.rows]
    if not lengths:
        return None
    short, long = int(np.argmin(lengths)), int(np.argmax(lengths))
    both = choices(together, trial.batch([short, long], is_packed=is_packed))
    if not both.slots:
        return None
    one, other = (choices(alone, trial.batch([row], is_packed=False)) for row in (short, long))
    wider = set(both.slots - other.slots) - set(one.slots)
    for _, taken in sorted(wider & both.tied):
        what = f"the model takes the {taken} highest of a row's scores"
        return f"{what}, and which of equal ones depends on the rows beside it"
    return None


def choices(logits: Logits, batch: Batch) -> "Choices":
    """What is chosen while a micro-batch is computed."""
    seen = Choices()
    with torch.no_grad(), seen:
        logits(batch)
    return seen


class Choices(TorchFunctionMode):
    """Notes each torch.topk that leaves something out."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: Counter[Choice] = Counter()
        """How often it is chosen so."""
        self.tied: set[Choice] = set()
        """Where some scores of one choice are equal, those left aside that a mask hides."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in _TOPK:
            self._note(*args[:3], **{name: named[name] for name in ("input", "k", "dim") if name in named})
        return func(*args, **named)

    def _note(self, input: torch.Tensor, k: int, dim: int = -1) -> None:
        size = input.shape[dim] if input.dim() else 1
        if k < size:
            self.slots[size, k] += input.numel() // size
            if _has_equal(input.detach(), dim=dim):
                self.tied.add((size, k))


def _has_equal(scores: torch.Tensor, *, dim: int) -> bool:
    """Whether two scores along `dim` are equal that no mask hides: masks make them as low as can be."""
    ranked = scores.sort(dim=dim).values
    low, high = ranked.narrow(dim, 0, ranked.shape[dim] - 1), ranked.narrow(dim, 1, ranked.shape[dim] - 1)
    is_seen = low.isfinite() & (low > torch.finfo(scores.dtype).min) if scores.is_floating_point() else True
    return bool(((low == high) & is_seen).any())
