"""Scalars for TensorBoard, in the run folder's trackers/tensorboard."""

from torch.utils.tensorboard import SummaryWriter

from fledge.events import Event, Resumed, StepDone, Validated
from fledge.rundir import RunDir


class TensorBoard:
    """Writes each step's numbers; after a resume the steps that are told again replace those told before."""

    name = "tensorboard"

    def __init__(self, run: RunDir) -> None:
        self._folder = str(run.trackers / self.name)
        self._writer = SummaryWriter(self._folder)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Resumed):
            self._writer.close()
            self._writer = SummaryWriter(self._folder, purge_step=event.from_step + 1)
        elif isinstance(event, StepDone):
            self._scalar("train/loss", event.loss, event.step)
            self._scalar("train/grad_norm", event.grad_norm, event.step)
            self._scalar("train/learning_rate", event.learning_rate, event.step)
            self._scalar("train/tokens_per_second", event.tokens / event.seconds if event.seconds else 0.0, event.step)
        elif isinstance(event, Validated):
            self._scalar("validation/loss", event.loss, event.step)

    def close(self) -> None:
        self._writer.close()

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)


def open_tracker(run: RunDir) -> TensorBoard:
    """A TensorBoard observer for this run."""
    return TensorBoard(run)
