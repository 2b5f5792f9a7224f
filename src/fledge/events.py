"""What a run tells: one frozen value per event, one JSON object per line of events.jsonl.

    prepared -> train_started -> [resumed] -> step* (validated, saved, skipped_step, notice among them)
                              -> finished | interrupted | failed

The loop tells, observers listen; an observer gets values and never the trainer.
"""

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar


def _now() -> float:
    return time.time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The part that every event has: its name, and the time (seconds since 1970)."""

    event: ClassVar[str]
    time: float = field(default_factory=_now)

    def as_json(self) -> dict[str, Any]:
        """The event as a JSON object; a number that is not finite becomes text, for JSON has none."""
        body = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"event": self.event, **body}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStarted(Event):
    """A process begins to work in a run folder."""

    event: ClassVar[str] = "train_started"
    run: str
    total_steps: int
    world_size: int
    trainable_parameters: int
    base_parameters: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Event):
    """The rows are tokenised; counts are those of the ledger."""

    event: ClassVar[str] = "prepared"
    rows: int
    dropped_rows: int
    tokens: int
    supervised_tokens: int
    seconds: float
    from_cache: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """The run goes on from a checkpoint; steps after `from_step` are told again and the last telling counts."""

    event: ClassVar[str] = "resumed"
    from_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone(Event):
    """One optimiser step: `loss` is the optimised quantity, the mean over the step's supervised tokens."""

    event: ClassVar[str] = "step"
    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped(Event):
    """fp16: the scaled gradient overflowed, the scale was lowered, the weights were left alone."""

    event: ClassVar[str] = "skipped_step"
    step: int
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(Event):
    """The validation loss after `step`, token-weighted as the training loss is."""

    event: ClassVar[str] = "validated"
    step: int
    loss: float
    tokens: int
    is_best: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(Event):
    """A checkpoint is complete on disk."""

    event: ClassVar[str] = "saved"
    step: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something worth a line to a person: what `auto` chose, what was dropped, what was found odd."""

    event: ClassVar[str] = "notice"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(Event):
    """A signal stopped the run after `step`, with everything saved."""

    event: ClassVar[str] = "interrupted"
    step: int
    signal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """The run stopped because going on would have been wrong; the last checkpoint is kept."""

    event: ClassVar[str] = "failed"
    step: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The run is complete. `adapter_step` is the step that the adapter is of: the last, or the best by validation."""

    event: ClassVar[str] = "finished"
    step: int
    adapter_sha256: str
    seconds: float
    adapter_step: int | None = None
    stopped_early: bool = False
