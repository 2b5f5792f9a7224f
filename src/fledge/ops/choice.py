"""Which fused kernels a tensor's device runs, and the switch that turns them off: Triton's on a GPU, C++ on a CPU."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

from fledge.errors import FledgeError
from fledge.ops.native.build import identity, is_missing

LEAST = (8, 0)
"""Compute capability that the kernels are written for: the first with bfloat16. Older cards take plain ATen."""
WIDEST = 256
"""Features of a head that attention's kernels take at most."""


@dataclass(frozen=True, slots=True)
class Family:
    """Kernels of one kind: where they are, which there are, and the number formats that they take."""

    package: str
    names: frozenset[str]
    dtypes: frozenset[torch.dtype]


_NAMES = frozenset({"activation", "attention", "cross_entropy", "norm", "rotary"})
TRITON = Family("fledge.ops.fused", _NAMES, frozenset({torch.float32, torch.bfloat16, torch.float16}))
NATIVE = Family("fledge.ops.native", _NAMES, frozenset({torch.float32, torch.bfloat16}))
_OFF: list[bool] = []
_REFUSED: dict[torch.device, str] = {}


def fused(name: str, x: torch.Tensor) -> ModuleType | None:
    """The kernels `name` where x's device runs them, else None: then the caller's own operations compute.

    With TRITON_INTERPRET=1 set before the first call a CPU runs Triton's, slowly, which is how they are tested.
    """
    family = _family(x.device)
    if name not in family.names or x.dtype not in family.dtypes or not runs_on(x.device):
        return None
    return _module(family, name)


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


def kernels_named(device: torch.device) -> str:
    """What computes on this device, by what its last bits hang on."""
    if not runs_on(device):
        return "torch's operations"
    if _family(device) is NATIVE:
        return f"C++ kernels {identity()}"
    return f"kernels by Triton {importlib.import_module('triton').__version__}"


def must_compile(device: torch.device) -> bool:
    """Whether the first question about this device's kernels compiles them, which takes some seconds."""
    return not _OFF and _family(device) is NATIVE and is_missing()


def refuse(device: torch.device, why: str) -> None:
    """This process uses no kernels on the device from now on."""
    _REFUSED[device] = why


def _family(device: torch.device) -> Family:
    return NATIVE if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1" else TRITON


@cache
def _why_not(device: torch.device) -> str | None:
    family = _family(device)
    why = _lacks_triton(device) if family is TRITON else None
    if why is not None:
        return why
    try:
        if not _module(family, "trial").computes(device):
            return "a kernel computed something else here"
    except FledgeError as error:
        return error.problems[0].what
    except Exception as error:  # a compiler, its headers or a folder to write to may be missing: each raises its own
        return f"Triton cannot compile here ({_first_line(error)})"
    return None


def _lacks_triton(device: torch.device) -> str | None:
    if device.type not in ("cpu", "cuda"):
        return "there are none for it"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < LEAST:
        return f"the card is older than compute capability {LEAST[0]}.{LEAST[1]}"
    return None if importlib.util.find_spec("triton") else "Triton is not installed"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0][:200]


@cache
def _module(family: Family, name: str) -> ModuleType:
    return importlib.import_module(f"{family.package}.{name}")
