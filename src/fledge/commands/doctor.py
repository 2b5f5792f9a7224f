"""`fledge doctor`: what is on this machine, and what Fledge can do with it."""

import importlib.util
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fledge.data.cache import cache_root
from fledge.errors import Problem
from fledge.models.attention import IMPLEMENTATIONS, flash_missing
from fledge.observe.trackers import TRACKERS
from fledge.ops.choice import why_not
from fledge.ops.native.build import why_uncompilable
from fledge.ops.product import must_widen
from fledge.release import DISTRIBUTION, VERSION
from fledge.runtime.memory import available_bytes
from fledge.units import format_bytes

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "datasets", "pydantic")
LEAST_FREE_BYTES = 2_000_000_000
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: memory in bytes, compute capability as CUDA numbers it."""

    name: str
    memory_bytes: int
    capability: str
    has_bfloat16: bool
    lacks_kernels: str | None
    """Why it runs no fused kernels; None where it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found; `problems` are what is in the way of a training."""

    fledge: str
    python: str
    system: str
    libraries: dict[str, str]
    cores: int
    threads: int
    memory_bytes: int
    bfloat16_instructions: tuple[str, ...]
    lacks_kernels: str | None
    """Why the CPU's kernels cannot be compiled; None where a compiler is there."""
    gpus: tuple[Gpu, ...]
    attention: dict[str, str | None]
    """What model.attention can name -> what it lacks here, None where it can run."""
    extras: dict[str, bool]
    cache: str
    cache_free_bytes: int
    problems: tuple[Problem, ...]

    def as_lines(self) -> dict[str, str]:
        """The findings as names and values for people."""
        tiles = "none: its products are computed in float32, by tiles, about as fast as float32 itself"
        slow = tiles if must_widen(torch.bfloat16, "cpu") else "none: bfloat16 works and is slow, float32 may be faster"
        lines = {
            "fledge": f"{self.fledge}, Python {self.python}, {self.system}",
            "libraries": ", ".join(f"{name} {found}" for name, found in self.libraries.items()),
            "cores": f"{self.cores}, torch uses {self.threads} threads",
            "memory": f"{format_bytes(self.memory_bytes)} to be had",
            "bfloat16 on the CPU": ", ".join(self.bfloat16_instructions) or slow,
            "kernels on the CPU": "compiled when they are first needed"
            if self.lacks_kernels is None
            else f"none, so each step takes longer: {self.lacks_kernels}",
        }
        for index, gpu in enumerate(self.gpus):
            dtype = "bfloat16" if gpu.has_bfloat16 else "float16 only"
            dtype += ", fused kernels" if gpu.lacks_kernels is None else f", no fused kernels: {gpu.lacks_kernels}"
            lines[f"GPU {index}"] = (
                f"{gpu.name}, {format_bytes(gpu.memory_bytes)}, capability {gpu.capability}, {dtype}"
            )
        if not self.gpus:
            lines["GPU"] = "none visible; training runs on the CPU"
        lines["attention"] = ", ".join(name for name, lacks in self.attention.items() if lacks is None)
        lines["attention"] += "".join(f"; not {name}: {lacks}" for name, lacks in self.attention.items() if lacks)
        lines["extras"] = ", ".join(f"{name} {'yes' if has else 'no'}" for name, has in self.extras.items())
        lines["cache"] = f"{self.cache}, {format_bytes(self.cache_free_bytes)} free"
        return lines


def examine() -> Findings:
    """Look at this machine. Opens no connection and changes nothing."""
    cache = cache_root()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    problems = [*_problems_of_libraries(), *_problems_of_cache(cache, existing, free)]
    return Findings(
        fledge=VERSION,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        libraries={name: found for name in LIBRARIES if (found := _version(name)) is not None},
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=available_bytes(torch.device("cpu")),
        bfloat16_instructions=_bfloat16_instructions(),
        lacks_kernels=why_uncompilable(),
        gpus=tuple(_gpu(index) for index in range(torch.cuda.device_count())),
        attention={"auto": None, **{name: _lacks(name) for name in IMPLEMENTATIONS}},
        extras={name: importlib.util.find_spec(tracker.package) is not None for name, tracker in TRACKERS.items()},
        cache=str(cache),
        cache_free_bytes=free,
        problems=tuple(problems),
    )


def _lacks(attention: str) -> str | None:
    return flash_missing() if attention == "flash" else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _problems_of_libraries() -> list[Problem]:
    missing = [name for name in LIBRARIES if _version(name) is None]
    cure = f"install Fledge anew: pip install {DISTRIBUTION}"
    return [Problem(f"{name} is not installed", "libraries", cure) for name in missing]


def _problems_of_cache(cache: Path, existing: Path, free: int) -> list[Problem]:
    found = []
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        cure = "set XDG_CACHE_HOME to a folder that can be written"
        found.append(Problem(f"the cache cannot be written: {error.strerror}", str(cache), cure))
    if free < LEAST_FREE_BYTES:
        what = f"only {format_bytes(free)} are free where prepared data are kept"
        found.append(Problem(what, str(cache), "free some, or set XDG_CACHE_HOME to another disk"))
    return found


def _bfloat16_instructions(information: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Instructions of this CPU that compute in bfloat16, as Linux lists them."""
    lines = information.read_text(encoding="utf-8", errors="replace").splitlines() if information.exists() else []
    named = (line.partition(":") for line in lines)
    flags = next((value.split() for name, _, value in named if name.strip() in ("flags", "Features")), [])
    return tuple(flag for flag in BF16_FLAGS if flag in flags)


def _gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    has_bfloat16 = properties.major >= 8  # what is older emulates it
    capability = f"{properties.major}.{properties.minor}"
    lacks_kernels = why_not(torch.device("cuda", index))
    return Gpu(properties.name, int(properties.total_memory), capability, has_bfloat16, lacks_kernels)
