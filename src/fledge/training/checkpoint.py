"""Checkpoints: everything a resume needs, in folders that are complete or absent.

step-N/  weights.safetensors     trained tensors, float32
         optimizer.safetensors   AdamW's moments and step counts
         generators.safetensors  every random generator's state
         state.json              counters, the gradient scaler, what the run was
         adapter/                the same weights in peft's format
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fledge.errors import RunError
from fledge.rundir import RunDir, whole_folder, write_json
from fledge.runtime.precision import Scaler
from fledge.runtime.random import generator_states, restore_generators
from fledge.training.state import Progress

_WEIGHTS = "weights.safetensors"

SaveAdapter = Callable[[Path], str]
"""Writes the adapter in peft's format into a folder; returns the sha256 of its weights file."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a checkpoint holds besides counters."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Scaler
    save_adapter: SaveAdapter


def save_checkpoint(run: RunDir, trained: Trained, *, progress: Progress, keep: int) -> Path:
    """Write checkpoints/step-N whole, then remove all but the newest `keep`."""
    target = run.checkpoint(progress.step)
    with whole_folder(target) as folder:
        save_file(_weights(trained.model), folder / _WEIGHTS)
        save_file(_moments(trained.optimizer), folder / "optimizer.safetensors")
        save_file(generator_states(), folder / "generators.safetensors")
        trained.save_adapter(folder / "adapter")
        write_json(folder / "state.json", {"progress": progress.as_json(), "scaler": trained.scaler.state()})
    for step in run.checkpoint_steps()[:-keep]:
        shutil.rmtree(run.checkpoint(step))
    return target


def save_best(run: RunDir, trained: Trained, *, step: int, loss: float, with_weights: bool) -> None:
    """Write checkpoints/best: the adapter with the lowest validation loss so far.

    `with_weights` adds the trained tensors as they are, for `load_best`: what peft's format holds may be made of them.
    """
    with whole_folder(run.best) as folder:
        digest = trained.save_adapter(folder)
        if with_weights:
            save_file(_weights(trained.model), folder / _WEIGHTS)
        best = {"step": step, "validation_loss": loss, "adapter_file_sha256": digest}
        write_json(folder / "best.json", best)


def load_best(run: RunDir, trained: Trained) -> None:
    """Put the weights of checkpoints/best into the model. They were written `with_weights`."""
    _load_weights(trained.model, load_file(run.best / _WEIGHTS), run.best)


def load_newest(run: RunDir, trained: Trained) -> Progress | None:
    """Put the newest checkpoint back into model, optimiser, scaler and generators; None where there is none.

    Raises RunError where the checkpoint does not fit the model.
    """
    steps = run.checkpoint_steps()
    if not steps:
        return None
    folder = run.checkpoint(steps[-1])
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    _load_weights(trained.model, load_file(folder / _WEIGHTS), folder)
    _load_moments(trained.optimizer, load_file(folder / "optimizer.safetensors"))
    if state["scaler"]:
        trained.scaler.load(state["scaler"])
    restore_generators(load_file(folder / "generators.safetensors"))
    return Progress(**state["progress"])


def _trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in sorted(model.named_parameters()) if parameter.requires_grad}


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in _trained_parameters(model).items()}


def _load_weights(model: torch.nn.Module, saved: dict[str, torch.Tensor], folder: Path) -> None:
    parameters = _trained_parameters(model)
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in saved.items()}:
        raise RunError("this checkpoint is of another adapter", where=str(folder), cure="choose another output.dir")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state by the parameter's place in the optimiser, which is in order of name."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index:06d}.{key}": value.detach().cpu().contiguous()
        for index, moments in state.items()
        for key, value in moments.items()
    }


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in saved.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
