"""The manifest: what a run stood on, so that its numbers can be had again."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fledge.errors import ModelError, RunError
from fledge.models.beside import FILES as ADAPTER_FILES
from fledge.models.files import fetched_files
from fledge.models.locate import locate
from fledge.release import VERSION

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "datasets", "numpy")
_SAID_OF = {
    "machine": "machine {}",
    "instructions": "CPU instructions {}",
    "gpu": "GPU {}",
    "computes": "each step by {}",
    "world_size": "{} processes",
}
START = "init_from"
"""Among the hashes, that of the adapter that training starts from: of its weights file and of its settings."""
_LOADED_FIRST = "model.safetensors"
"""Where this file is there, no other is loaded."""
SAMPLE_BYTES, SAMPLES = 1 << 16, 64
_PUT_BACK = "put back the file that the training wrote"
_CURE = f"{_PUT_BACK}, or remove it: then nothing is compared with what the run was trained on"


def describe(
    *,
    name_or_path: str,
    revision: str,
    tokenizer: str,
    data: str,
    hardware: Mapping[str, Any],
    start: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Versions, hardware, and hashes of base, data and template, and of the adapter that training starts from where
    there is one. The base was loaded: a hub id's files are here.
    """
    local = base_digest(name_or_path)
    return {
        "versions": versions(),
        "hardware": dict(hardware),
        "hashes": {
            "base": hub_digest(name_or_path, revision=revision) if local is None else local,
            "tokenizer_and_template": tokenizer,
            "data": data,
            **({} if start is None else {START: dict(start)}),
        },
    }


def read_object(path: Path, *, cure: str = _PUT_BACK) -> dict[str, Any]:
    """What a run has written down in a JSON file of its own; nothing where there is no such file.

    Raises RunError with this cure where it cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"this file of the run cannot be read: {error}", where=str(path), cure=cure) from error
    if not isinstance(found, dict):
        raise RunError("this file of the run cannot be read: it holds no JSON object", where=str(path), cure=cure)
    return found


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run; empty where it has none. Raises RunError where it cannot be read."""
    found = read_object(path, cure=_CURE)
    lacks = [name for name in ("versions", "hardware", "hashes") if not isinstance(found.get(name), dict)]
    threads = 1 if lacks else found["hardware"].get("threads")
    if not lacks and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        lacks = ["hardware.threads"]
    if lacks and path.is_file():
        what = f"this file of the run cannot be read: it does not say {', '.join(lacks)}"
        raise RunError(what, where=str(path), cure=_CURE)
    return found


def hardware_of(device: torch.device, *, world_size: int, computes: str) -> dict[str, Any]:
    """What a run is computed on; `computes` is what computes a step."""
    is_gpu = device.type == "cuda"
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": None if is_gpu else torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(device) if is_gpu else None,
        "computes": computes,
        "world_size": world_size,
    }


def changes_since(before: Mapping[str, Any], hardware: Mapping[str, Any]) -> list[str]:
    """What has a say in the last bits of a run and is not what its manifest says."""
    old, new = before["versions"], versions()
    found = [f"{name} {old[name]}, now {new.get(name, 'not there')}" for name in old if old[name] != new.get(name)]
    said = before["hardware"]
    for name, text in _SAID_OF.items():
        if name in said and said[name] != hardware[name]:
            found.append(f"{text.format(said[name] or 'none')}, now {hardware[name] or 'none'}")
    return found


def versions() -> dict[str, str]:
    """Of every package that has a say in the numbers, and of Python."""
    return {"fledge": VERSION} | {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def base_digest(name_or_path: str) -> dict[str, str] | None:
    """sha256 of each weights file of a local base: of the whole up to 4 MB, else of its size and 64 samples of it.

    None for a hub id (see `hub_digest`). An adapter that lies beside the base's weights is no part of it.
    """
    folder = Path(locate(name_or_path))
    if not folder.is_dir():
        return None
    weights = (path for path in sorted(folder.glob("*.safetensors")) if path.name not in ADAPTER_FILES)
    return {path.name: _digest(path) for path in weights}


def hub_digest(name_or_path: str, *, revision: str) -> dict[str, str | None]:
    """The same of a hub id that has been loaded: of each weights file, and the `commit` that they are of.

    Of files that cannot be found again nothing is noted.
    """
    try:
        commit, files = fetched_files(locate(name_or_path), revision=revision)
    except (OSError, ModelError):
        return {"commit": None}
    return {"commit": commit} | {path.name: _digest(path) for path in files}


def files_noted(digest: Any) -> dict[str, str]:
    """The weights files in a base's hash; empty where none is noted, as of a hub id by an older Fledge."""
    return {name: sha for name, sha in digest.items() if name != "commit"} if isinstance(digest, dict) else {}


def is_same_base(noted: Any, now: Any) -> bool:
    """Whether two hashes are of the same weights: all files that were noted are there, whatever lies beside them.

    Where files were not noted, the commits decide, if both are known.
    """
    before, found = files_noted(noted), files_noted(now)
    if before and found:
        return before.items() <= found.items() and not (_LOADED_FIRST in found and _LOADED_FIRST not in before)
    if not (isinstance(noted, dict) and isinstance(now, dict) and "commit" in noted and "commit" in now):
        return bool(noted == now)
    return None in (noted["commit"], now["commit"]) or bool(noted["commit"] == now["commit"])


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
