"""How far a run has come: the counters that a resume goes on with."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """After `step` optimiser steps. Counters are over all ranks; seconds are of training alone."""

    step: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    rows: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    validation_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    validations_since_best: int = 0
    stopped_early: bool = False
    """Whether validation asked for the end before the last step."""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    """Of this rank, over all starts of the run."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
