"""The loop: many steps, told to whoever listens, saved so that it can be killed anywhere.

for each step:  batches -> train_step -> tell(step) -> [validate] -> [save] -> [stop]
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from fledge.data.rows import Batch
from fledge.errors import RunError, StoppedBySignal, TrainingError
from fledge.events import Event, Failed, Interrupted, Notice, Saved, StepDone, StepSkipped, Validated
from fledge.rundir import RunDir, sync_file
from fledge.runtime.memory import peak_bytes
from fledge.runtime.mesh import Mesh
from fledge.training.checkpoint import Trained, save_best, save_checkpoint
from fledge.training.optimizer import set_learning_rate
from fledge.training.schedule import LearningRate
from fledge.training.state import Progress
from fledge.training.step import LossOf, StepResult, train_step
from fledge.training.stop import SIGNALS, StopRequest
from fledge.training.watch import GradientWatch

MAX_SKIPPED = 20


@dataclass(frozen=True, slots=True)
class ValidationLoss:
    """Mean loss over supervised tokens, and how many there were."""

    loss: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """When things happen, and how steps are made."""

    total_steps: int
    learning_rate: LearningRate
    max_grad_norm: float | None
    validate_every: int
    save_every: int
    keep_checkpoints: int
    may_rest: bool = False
    """Whether some trained tensors may get no gradient: of layers that nobody has chosen one by one."""
    patience: int | None = None
    """Validations in a row without a better loss after which the run ends; None for no end before the last step."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with. It does not know models, adapters or observers."""

    trained: Trained
    batches_of: Callable[[int], Sequence[Batch]]
    """This rank's micro-batches of a step."""
    rows_in: Callable[[int], int]
    """Rows of a step over all ranks."""
    loss_of: LossOf
    blame: Callable[[Sequence[Batch]], list[str]]
    """Where the rows lie that make the loss or the gradient not finite."""
    validate: Callable[[], ValidationLoss] | None
    mesh: Mesh
    run: RunDir
    tell: Callable[[Event], None]
    stop: StopRequest
    during: Callable[[str], contextlib.AbstractContextManager[None]] = lambda name: contextlib.nullcontext()
    """Within `during(name)` what is done is the phase `name`, as time and memory are told."""


def run_loop(parts: Parts, plan: Plan, *, progress: Progress) -> Progress:
    """Steps until the plan's last one, or until validation asks for the end, from wherever `progress` is. Returns the
    last progress.

    Raises TrainingError where going on would be wrong, StoppedBySignal where a signal asked for the end.
    """
    watch = GradientWatch(parts.trained.model, parts.trained.optimizer, may_rest=plan.may_rest)
    if progress.step == 0:
        with parts.during("saving"):
            _save(parts, plan, progress)
    while progress.step < plan.total_steps and not progress.stopped_early:
        progress = _one_step(parts, plan, progress, watch)
        is_last = progress.step == plan.total_steps
        if parts.validate is not None and (is_last or progress.step % plan.validate_every == 0):
            with parts.during("validation"):
                progress = _validate(parts, plan, progress)
        is_last = is_last or progress.stopped_early
        signal_number = _agree_to_stop(parts)
        if is_last or signal_number or progress.step % plan.save_every == 0:
            with parts.during("saving"):
                _save(parts, plan, progress)
        if signal_number and not is_last:
            parts.tell(Interrupted(step=progress.step, signal=signal_number))
            raise StoppedBySignal(signal_number, step=progress.step, run=str(parts.run.root))
    return progress


def _one_step(parts: Parts, plan: Plan, progress: Progress, watch: GradientWatch) -> Progress:
    step, start = progress.step + 1, time.perf_counter()
    rate = plan.learning_rate.at(step)
    set_learning_rate(parts.trained.optimizer, rate)
    result = _until_finite(parts, plan, step, watch)
    _check_watch(parts, step, watch)
    seconds = time.perf_counter() - start
    parts.tell(
        StepDone(
            step=step,
            loss=result.loss,
            grad_norm=result.grad_norm,
            learning_rate=rate,
            tokens=result.tokens,
            supervised_tokens=result.supervised_tokens,
            seconds=seconds,
        )
    )
    return replace(
        progress,
        step=step,
        tokens=progress.tokens + result.tokens,
        supervised_tokens=progress.supervised_tokens + result.supervised_tokens,
        rows=progress.rows + parts.rows_in(step),
        first_loss=result.loss if progress.first_loss is None else progress.first_loss,
        last_loss=result.loss,
        peak_memory_bytes=max(progress.peak_memory_bytes, peak_bytes(next(parts.trained.model.parameters()).device)),
        seconds=progress.seconds + seconds,
    )


def _check_watch(parts: Parts, step: int, watch: GradientWatch) -> None:
    try:
        if text := watch.settle(step):
            parts.tell(Notice(text=text))
    except TrainingError as error:
        parts.tell(Failed(step=step, reason=error.problems[0].what))
        raise


def _until_finite(parts: Parts, plan: Plan, step: int, watch: GradientWatch) -> StepResult:
    """The step's result. With a scaler an overflow lowers the factor and the same rows are tried again."""
    trained, batches = parts.trained, parts.batches_of(step)
    for _ in range(MAX_SKIPPED):
        result = train_step(
            trained.model,
            batches,
            parts.loss_of,
            trained.optimizer,
            mesh=parts.mesh,
            scaler=trained.scaler,
            max_norm=plan.max_grad_norm,
            watch=watch.look,
        )
        trained.scaler.update(overflowed=not result.is_applied)
        if result.is_applied:
            return result
        if not trained.scaler.is_active:
            _fail(parts, step, f"the loss or the gradient of step {step} is not finite", batches)
        parts.tell(StepSkipped(step=step, scale=trained.scaler.factor))
    _fail(parts, step, f"{MAX_SKIPPED} steps in a row overflowed float16 at step {step}", batches)
    raise AssertionError("unreachable")


def _fail(parts: Parts, step: int, reason: str, batches: Sequence[Batch]) -> None:
    guilty = parts.mesh.gather(parts.blame(batches))
    named = _blamed(guilty, num_rows=parts.rows_in(step))
    kept = parts.run.checkpoints
    parts.tell(Failed(step=step, reason=f"{reason}: {named}"))
    raise TrainingError(
        reason,
        where=named,
        cure=f"look at these rows, or lower the learning rate; the last good checkpoint is kept in {kept}",
    )


def _blamed(guilty: list[str], *, num_rows: int) -> str:
    if not guilty:
        return "no single row is to blame"
    named = "; ".join(guilty[:10]) + (f" and {len(guilty) - 10} more" if len(guilty) > 10 else "")
    return f"all rows of the step, so look at the base's weights too: {named}" if len(guilty) == num_rows > 1 else named


def _validate(parts: Parts, plan: Plan, progress: Progress) -> Progress:
    assert parts.validate is not None
    start = time.perf_counter()
    measured = parts.validate()
    is_best = math.isfinite(measured.loss) and (progress.best_loss is None or measured.loss < progress.best_loss)
    if is_best and parts.mesh.rank == 0:
        is_kept = plan.patience is not None
        save_best(parts.run, parts.trained, step=progress.step, loss=measured.loss, with_weights=is_kept)
    parts.tell(
        Validated(
            step=progress.step,
            loss=measured.loss,
            tokens=measured.tokens,
            is_best=is_best,
            seconds=time.perf_counter() - start,
        )
    )
    progress = replace(progress, validation_loss=measured.loss if math.isfinite(measured.loss) else None)
    if is_best:
        return replace(progress, best_loss=measured.loss, best_step=progress.step, validations_since_best=0)
    waited = progress.validations_since_best + 1
    is_over = plan.patience is not None and waited >= plan.patience and progress.step < plan.total_steps
    return replace(progress, validations_since_best=waited, stopped_early=is_over)


def _agree_to_stop(parts: Parts) -> int:
    """The signal that any rank has seen, or 0; every rank gets the same answer, so all stop after the same step."""
    device = next(parts.trained.model.parameters()).device
    seen = torch.tensor([number == parts.stop.signal_number for number in SIGNALS], dtype=torch.int64, device=device)
    counts = parts.mesh.sum(seen).tolist()
    return next((int(number) for number, count in zip(SIGNALS, counts, strict=True) if count), 0)


def _save(parts: Parts, plan: Plan, progress: Progress) -> None:
    if parts.mesh.rank == 0:
        if progress.step and not parts.run.root.is_dir():
            cure = "run the same command again: it trains from the beginning"
            raise RunError("the run folder was removed while it trained", where=str(parts.run.root), cure=cure)
        if parts.run.events.exists():
            sync_file(parts.run.events)  # a checkpoint must not outlive the events that led to it
        path = save_checkpoint(parts.run, parts.trained, progress=progress, keep=plan.keep_checkpoints)
        parts.tell(Saved(step=progress.step, path=str(path.relative_to(parts.run.root))))
    parts.mesh.barrier()
