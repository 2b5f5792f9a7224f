"""The `output` section: where a run lies and who listens to it."""

from typing import Literal

from pydantic import Field

from fledge.config.section import Section

Tracker = Literal["tensorboard", "wandb"]


class OutputConfig(Section):
    """The run folder and its trackers."""

    dir: str = Field(default="", validate_default=False)
    """The run folder; default runs/NAME beside the recipe, where NAME is the recipe's file name."""
    trackers: tuple[Tracker, ...] = ()
    """tensorboard, wandb; each needs its extra (pip install 'fledge-lora[tensorboard]')."""
    wandb_project: str | None = None
    """wandb: the project; null for WANDB_PROJECT where it is set, and fledge where not."""
    wandb_name: str | None = None
    """wandb: the run's name there; null for WANDB_NAME where it is set, and the run folder's name where not."""
