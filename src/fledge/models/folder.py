"""Says what a folder is that is no base to be loaded, and what to do; it is light."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fledge.config.adapter_file import PICKLED, SETTINGS, WEIGHTS
from fledge.errors import ModelError

_POINTER = b"version https://git-lfs.github.com/spec/"
_OF_ADAPTERS = (SETTINGS, WEIGHTS, PICKLED)
_READ = ("*.json", "*.safetensors", "*.model")
"""Files of a base that are read; any of them may be a pointer."""


def check_folder(folder: Path) -> None:
    """Raise ModelError where a local folder is no base: an adapter, a run, a checkout without its large files, or
    weights that only pickle reads.
    """
    if pointers := [path.name for path in _files(folder, *_READ) if _is_pointer(path)]:
        what = f"{_listed(pointers)} {'is a git-lfs pointer' if len(pointers) == 1 else 'are git-lfs pointers'}"
        cure = f"fetch the files themselves: `git -C {shlex.quote(str(folder))} lfs pull`"
        raise ModelError(f"{what}, which stands for a file that was not fetched", where=str(folder), cure=cure)
    if not (folder / "config.json").is_file():
        raise _without_config(folder)
    pickled = [path.name for path in _files(folder, "*.bin", "*.pt", "*.pth")]
    if pickled and not list(_files(folder, "*.safetensors")):
        what = f"its weights are pickled ({_listed(pickled)}), and a pickle can run any code when it is read"
        config = _read(folder / "config.json")
        kind = "AutoModelForSeq2SeqLM" if config.get("is_encoder_decoder") is True else "AutoModelForCausalLM"
        kind = "AutoModelForImageTextToText" if "vision_config" in config else kind
        code = (
            f"from transformers import {kind} as M; M.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
        cure = "take the .safetensors files of the same base; or, if you trust the files, write such once: "
        cure += f"python -c {shlex.quote(code)}"
        raise ModelError(what, where=str(folder), cure=cure)


def _without_config(folder: Path) -> ModelError:
    where = str(folder)
    if (folder / "adapter_config.json").is_file():
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path")
        run = folder.parent if (folder.parent / "recipe.yaml").is_file() else None
        merge = f"; or merge it: `fledge export {shlex.quote(str(run))} OUT --to hf`, and give OUT" if run else ""
        on = f"; to train the adapter on, write lora.init_from: {folder} too"
        cure = f"set model.name_or_path to its base{f', {base}' if base else ''}{merge}{on}"
        return ModelError("this is an adapter, not a base", where=where, cure=cure)
    if (folder / "recipe.yaml").is_file() and (folder / "events.jsonl").is_file():
        cure = f"merge it: `fledge export {shlex.quote(str(folder))} OUT --to hf`, and give OUT; or set "
        cure += f"model.name_or_path to its base, and lora.init_from: {folder} to train its adapter on"
        return ModelError("this is a run folder, not a base", where=where, cure=cure)
    if list(_files(folder, "*.gguf")):
        what = "this folder has a GGUF file, which cannot be trained, and no config.json"
        return ModelError(what, where=where, cure="give the Hugging Face model folder that the file was made of")
    return ModelError("this folder has no config.json", where=where, cure="give a Hugging Face model folder")


def code_refusal(error: Exception, *, what: str, where: str) -> ModelError | None:
    """What to say where the library asks for leave to run code that comes with a base; None for other errors."""
    if "trust_remote_code" not in str(error):
        return None
    cure = "read the Python files in it, and set model.trust_remote_code: true if you want that code to run"
    return ModelError(f"{what} needs code of its own, which comes with the base", where=where, cure=cure)


def _files(folder: Path, *patterns: str) -> Iterator[Path]:
    """Files of the base, by name; those of an adapter that lies beside them are none."""
    for pattern in patterns:
        yield from (path for path in sorted(folder.glob(pattern)) if path.name not in _OF_ADAPTERS)


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
