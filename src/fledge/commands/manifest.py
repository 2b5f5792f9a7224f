"""The manifest: what a run stood on, so that its numbers can be had again."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fledge.models.locate import locate

PACKAGES = ("fledge", "torch", "transformers", "peft", "tokenizers", "safetensors", "datasets", "numpy")
SAMPLE_BYTES, SAMPLES = 1 << 16, 64


def describe(
    *,
    name_or_path: str,
    commit: str | None,
    tokenizer: str,
    data: str,
    device: torch.device,
    world_size: int,
) -> dict[str, Any]:
    """Versions, hardware, and hashes of base, data and template. `commit` is what a hub id's revision stood for."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "versions": versions(),
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
            "world_size": world_size,
        },
        "hashes": {
            "base": base_digest(name_or_path) or {"commit": commit},
            "tokenizer_and_template": tokenizer,
            "data": data,
        },
    }


def versions() -> dict[str, str]:
    """Of every package that has a say in the numbers, and of Python."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def base_digest(name_or_path: str) -> dict[str, str] | None:
    """sha256 of each weights file of a local base: of the whole up to 4 MB, else of its size and 64 samples of it.

    None for a hub id, whose commit names its bytes.
    """
    folder = Path(locate(name_or_path))
    if not folder.is_dir():
        return None
    return {path.name: _digest(path) for path in sorted(folder.glob("*.safetensors"))}


def _digest(path: Path) -> str:
    size = path.stat().st_size
    if size <= SAMPLES * SAMPLE_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for index in range(SAMPLES):
            file.seek(index * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return f"sampled:{digest.hexdigest()}"
