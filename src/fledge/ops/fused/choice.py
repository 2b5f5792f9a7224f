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
_OFF: list[bool] = []


def fused(name: str, x: torch.Tensor) -> ModuleType | None:
    """The kernels `name` where x's device runs them, else None: then the caller's own operations compute.

    With TRITON_INTERPRET=1 set before the first call they run on a CPU too, slowly, which is how they are tested.
    """
    return _module(name) if not _OFF and runs_on(x.device) else None


@contextmanager
def unfused() -> Iterator[None]:
    """Within it no fused kernel is used."""
    _OFF.append(True)
    try:
        yield
    finally:
        _OFF.pop()


@cache
def runs_on(device: torch.device) -> bool:
    """Whether this device runs the kernels."""
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= LEAST
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f"fledge.ops.fused.{name}")
