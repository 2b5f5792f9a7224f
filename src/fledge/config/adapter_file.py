"""An adapter's folder by its adapter_config.json: what it is, and why it cannot be used where it cannot."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.errors import ModelError

SETTINGS, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

_NUMBER, _SWITCH, _NAMES, _TABLE, _PLACES = "a number", "true or false", "names", "a table of numbers", "whole numbers"
_ROWS = "lists of whole numbers"
_DEFAULTS: dict[str, tuple[Any, str]] = {
    "r": (8, _NUMBER),
    "lora_alpha": (8, _NUMBER),
    "lora_dropout": (0.0, _NUMBER),
    "target_modules": (None, _NAMES),
    "use_rslora": (False, _SWITCH),
    "use_dora": (False, _SWITCH),
    "modules_to_save": (None, _NAMES),
    "fan_in_fan_out": (False, _SWITCH),
    "rank_pattern": ({}, _TABLE),
    "alpha_pattern": ({}, _TABLE),
    "layers_to_transform": (None, _PLACES),
    "layers_pattern": (None, _NAMES),
    "exclude_modules": (None, _NAMES),
    "trainable_token_indices": (None, _ROWS),
}
"""What an adapter computes hangs on these: peft's default for each, and the kind of value it has."""
_IDLE = frozenset(
    "peft_type task_type auto_mapping peft_version base_model_name_or_path revision inference_mode runtime_config "
    "init_lora_weights megatron_core loftq_config eva_config corda_config lora_ga_config qalora_group_size "
    "transformers_version".split()
)
"""What changes nothing of a trained adapter: where it is from, and how it was started."""
_OF_ITS_OWN_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Starts that change the base, so that an adapter saved as it is does not go onto the base as it came."""
_WHY_NOT = {
    "bias": "it trains biases of the base, which cannot be switched off to show the base beside it",
    "lora_bias": "its B has a bias, which cannot be merged here",
    "layer_replication": "it repeats layers of its base",
    "target_parameters": "it trains parameters that are no modules, as of experts",
}
_TASKS = (None, "CAUSAL_LM", "SEQ_2_SEQ_LM")
_TASKS_SAID = {
    "SEQ_CLS": "it classifies whole texts",
    "TOKEN_CLS": "it classifies tokens",
    "QUESTION_ANS": "it marks answers in a text",
    "FEATURE_EXTRACTION": "it gives embeddings",
}
_OFF = (None, False, "", "none")


@dataclass(frozen=True, slots=True)
class Described:
    """What an adapter's settings say. `settings` are those that it computes by, peft's defaults where none is given."""

    folder: Path
    settings: dict[str, Any]
    base: str | None
    """The base that it names; where that lies may be another machine."""
    revision: str | None
    task: str | None
    notices: tuple[str, ...] = ()
    """What of the file was not used."""

    @property
    def token_rows(self) -> frozenset[int]:
        """Ids of the tokens whose own rows it trains."""
        found = self.settings["trainable_token_indices"] or ()
        return frozenset(row for rows in ([found] if isinstance(found, list) else dict(found).values()) for row in rows)


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder says that it is an adapter's."""
    return (folder / SETTINGS).is_file()


def adapter_in(folder: Path) -> Path:
    """Where the adapter lies: in a run's `adapter`, or in the folder itself."""
    is_run = all((folder / name).is_file() for name in ("recipe.yaml", "events.jsonl"))
    return folder / "adapter" if is_run and not is_adapter_folder(folder) else folder


def base_named_by(folder: Path) -> str | None:
    """The base that an adapter names; None where it names none, or cannot be read."""
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    base = found.get("base_model_name_or_path") if isinstance(found, dict) else None
    return base if isinstance(base, str) and base else None


def describe_adapter(folder: Path) -> Described:
    """What the adapter in a folder is. Its weights are not read.

    Raises ModelError where it is none that can be read, where it is no LoRA, is of a task that is no text generation,
    or has a setting that changes what it computes and that Fledge does not know.
    """
    found, where = _read(folder), str(folder / SETTINGS)
    _check_kind(found, where)
    ignored, refused = [], []
    for key, value in found.items():
        if key in _DEFAULTS:
            if value is None and _DEFAULTS[key][0] is not None:
                ignored.append(f"{key}, which is null")
        elif key not in _IDLE and not (value in _OFF or value in ({}, [])):
            refused.append(key)
        elif key not in _IDLE and key not in _KNOWN_OFF:
            ignored.append(f"{key}, which is not known here and is off")
    if refused:
        why = _WHY_NOT.get(refused[0], "it changes what is computed in a way that Fledge does not know")
        said = ", ".join(f"{key}: {json.dumps(found[key])[:60]}" for key in refused)
        cure = (
            "use it in plain peft; or take a setting out that is known to change nothing of what the adapter computes"
        )
        raise ModelError(f"this adapter cannot be used here: it is set to {said} ({why})", where=where, cure=cure)
    settings = {key: _valid(key, found.get(key), where) for key in _DEFAULTS}
    if not settings["target_modules"]:
        cure = "write there the names of the modules that its weights file has tensors for"
        raise ModelError("this adapter does not name its target_modules", where=where, cure=cure)
    notices = (f"of {where} was not used: {'; '.join(ignored)}",) if ignored else ()
    base, revision = (value if isinstance(value := found.get(key), str) and value else None for key in _FROM)
    return Described(folder, settings, base, revision, found.get("task_type"), notices)


_FROM = ("base_model_name_or_path", "revision")
_KNOWN_OFF = frozenset(
    "bias lora_bias layer_replication target_parameters megatron_config use_qalora use_bdlora arrow_config "
    "alora_invocation_tokens velora_config monteclora_config kasa_config ensure_weight_tying".split()
)
"""What peft knows and Fledge has only switched off."""


def _read(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises ModelError where the folder is no adapter's, or one whose weights are pickled."""
    path = folder / SETTINGS
    if not path.is_file():
        what = "this folder holds no adapter" if folder.is_dir() else "there is no such folder"
        cure = f"give a run folder that is trained to its end, or a folder with {SETTINGS} and {WEIGHTS}"
        raise ModelError(f"{what}: {path.name} is missing", where=str(folder), cure=cure)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        cure = "fetch the adapter again, all of its files"
        raise ModelError(f"the settings of the adapter cannot be read: {error}", where=str(path), cure=cure) from error
    if not isinstance(found, dict):
        cure = "fetch the adapter again, all of its files"
        raise ModelError("the settings of the adapter hold no JSON object", where=str(path), cure=cure)
    if not (folder / WEIGHTS).is_file():
        raise _without_weights(folder)
    return found


def _without_weights(folder: Path) -> ModelError:
    if (folder / PICKLED).is_file():
        code = (
            "import torch; from safetensors.torch import save_file; "
            f"t = torch.load({str(folder / PICKLED)!r}, weights_only=True); "
            f"save_file({{k: v.clone().contiguous() for k, v in t.items()}}, {str(folder / WEIGHTS)!r})"
        )
        what = f"its weights are pickled ({PICKLED}), and a pickle can run any code when it is read"
        cure = f"take the adapter as {WEIGHTS}; or, if you trust the file, write such once: python -c "
        return ModelError(what, where=str(folder), cure=cure + shlex.quote(code))
    cure = "fetch the adapter again, all of its files"
    return ModelError(f"the adapter has no weights: {WEIGHTS} is missing", where=str(folder), cure=cure)


def _check_kind(found: dict[str, Any], where: str) -> None:
    kind, task, start = (found.get(key) for key in ("peft_type", "task_type", "init_lora_weights"))
    if kind != "LORA":
        cure = "give a LoRA adapter, or use this one in plain peft"
        raise ModelError(f"this adapter is no LoRA: its peft_type is {json.dumps(kind)[:60]}", where=where, cure=cure)
    if task not in _TASKS:
        said = _TASKS_SAID.get(str(task), "Fledge trains what writes text")
        cure = "give an adapter whose task_type is CAUSAL_LM or SEQ_2_SEQ_LM, or use this one in plain peft"
        what = f"this adapter is not for text generation: its task_type is {json.dumps(task)[:60]}, {said}"
        raise ModelError(what, where=where, cure=cure)
    if isinstance(start, str) and start.lower().startswith(_OF_ITS_OWN_BASE):
        what = f"this adapter goes onto a base that its start changed: its init_lora_weights is {start}"
        cure = (
            "save it in peft as the difference to its start (path_initial_model_for_weight_conversion), and give that"
        )
        raise ModelError(what, where=where, cure=cure)


def _valid(key: str, value: Any, where: str) -> Any:
    """A setting, or peft's default where it is null or not there. Raises ModelError for another kind of value."""
    default, kind = _DEFAULTS[key]
    if value is None:
        return default
    if not _IS[kind](value) or (key == "r" and not isinstance(value, int)):
        what = f"the settings of the adapter cannot be read: {key} is {json.dumps(value)[:60]}, expected {kind}"
        raise ModelError(what, where=where, cure="fetch the adapter again, all of its files")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_whole(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int)


def _all_of(value: Any, is_one: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(is_one(each) for each in value)


_IS: dict[str, Callable[[Any], bool]] = {
    _NUMBER: _is_number,
    _SWITCH: lambda value: isinstance(value, bool),
    _NAMES: lambda value: isinstance(value, str) or _all_of(value, lambda each: isinstance(each, str) and bool(each)),
    _TABLE: lambda value: isinstance(value, dict) and all(_is_number(each) and each > 0 for each in value.values()),
    _PLACES: lambda value: _is_whole(value) or _all_of(value, _is_whole),
    _ROWS: lambda value: (
        _all_of(value, _is_whole)
        or (isinstance(value, dict) and all(_all_of(each, _is_whole) for each in value.values()))
    ),
}
