"""Whether a tensor's device runs the fused kernels, and the switch that turns them off."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch

LEAST = (8, 0)
"""Compute capability that the kernels are written for: the first with bfloat16. Older cards take plain ATen."""
WIDEST = 256
"""Features of a head that attention's kernels take at most."""
_OFF: list[bool] = []
_REFUSED: dict[torch.device, str] = {}


def fused(name: str, x: torch.Tensor) -> ModuleType | None:
    """The kernels `name` where x's device runs them, else None: then the caller's own operations compute.

    With TRITON_INTERPRET=1 set before the first call they run on a CPU too, slowly, which is how they are tested.
    """
    return _module(name) if runs_on(x.device) else None


@contextmanager
def unfused() -> Iterator[None]:
    """Within it no fused kernel is used."""
    _OFF.append(True)
    try:
        yield
    finally:
        _OFF.pop()


def runs_on(device: torch.device) -> bool:
    """Whether this device runs the kernels."""
    return why_not(device) is None


def why_not(device: torch.device) -> str | None:
    """Why this device does not run the kernels; None where it does."""
    return "they are switched off" if _OFF else _REFUSED.get(device) or _why_not(device)


def refuse(device: torch.device, why: str) -> None:
    """This process uses no kernels on the device from now on."""
    _REFUSED[device] = why


def is_refused(device: torch.device) -> bool:
    """Whether `refuse` was called."""
    return device in _REFUSED


@cache
def _why_not(device: torch.device) -> str | None:
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "a CPU runs none"
    if device.type not in ("cpu", "cuda"):
        return "they are written for CUDA"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < LEAST:
        return f"the card is older than compute capability {LEAST[0]}.{LEAST[1]}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        if not _module("trial").computes(device):
            return "a kernel of Triton's computed something else here"
    except Exception as error:  # a compiler, its headers or a folder to write to may be missing: each raises its own
        return f"Triton cannot compile here ({_first_line(error)})"
    return None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0][:200]


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f"fledge.ops.fused.{name}")
