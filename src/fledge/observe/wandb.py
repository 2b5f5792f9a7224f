"""Runs for Weights & Biases, kept in the run folder's trackers/ and synced only where the user has logged in."""

import netrc
import os
import secrets
from typing import Any

import wandb

from fledge.config.load import read_recipe
from fledge.config.output import OutputConfig
from fledge.events import Event, Finished, StepDone, TrainStarted, Validated
from fledge.rundir import RunDir, write_text

_HOST = "api.wandb.ai"


class WandB:
    """Opens its run when training starts; a resumed training goes on in the same one."""

    name = "wandb"

    def __init__(self, run: RunDir) -> None:
        self._folder = run
        self._run: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrainStarted) and self._run is None:
            self._run = _start(self._folder)
        if self._run is None:
            return
        if isinstance(event, StepDone):
            speed = event.tokens / event.seconds if event.seconds else 0.0
            self._log(
                event.step,
                {
                    "train/loss": event.loss,
                    "train/grad_norm": event.grad_norm,
                    "train/learning_rate": event.learning_rate,
                    "train/tokens_per_second": speed,
                },
            )
        elif isinstance(event, Validated):
            self._log(event.step, {"validation/loss": event.loss})
        elif isinstance(event, Finished):
            self._run.summary["adapter_sha256"] = event.adapter_sha256

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _log(self, step: int, values: dict[str, float]) -> None:
        # `step` is a value like others: wandb's own counter drops steps that are told again after a resume
        self._run.log({"step": step, **values})


def _start(folder: RunDir) -> Any:
    id_file = folder.trackers / "wandb_id"
    if not id_file.exists():
        write_text(id_file, secrets.token_hex(4))
    recipe = read_recipe(folder.recipe) if folder.recipe.exists() else None
    project, name = _names(recipe.output if recipe is not None else OutputConfig(), folder)
    run = wandb.init(
        project=project,
        name=name,
        id=id_file.read_text(encoding="utf-8"),
        resume="allow",
        dir=folder.trackers,
        mode=choose_mode(),
        config=recipe.model_dump(mode="json") if recipe is not None else None,
        settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
    )
    run.define_metric("*", step_metric="step")
    return run


def _names(output: OutputConfig, folder: RunDir) -> tuple[str, str]:
    """Project and run: the recipe's, else those of wandb's own variables, else fledge and the run folder's name."""
    project = output.wandb_project or os.environ.get("WANDB_PROJECT") or "fledge"
    return project, output.wandb_name or os.environ.get("WANDB_NAME") or folder.root.name


def choose_mode() -> Any:
    """WANDB_MODE where it is set; else online where a key is at hand, offline where not, and never a prompt."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        return chosen
    return "online" if os.environ.get("WANDB_API_KEY") or _has_login() else "offline"


def _has_login() -> bool:
    try:
        return netrc.netrc().authenticators(_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def open_tracker(run: RunDir) -> WandB:
    """A Weights & Biases observer for this run."""
    return WandB(run)
