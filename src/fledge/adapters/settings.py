"""adapter_config.json with the keys that say something: what stands at its default is left out.

peft of an older version refuses a key that it does not know, even where the key stands at what that version does.
"""

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.utils import CONFIG_NAME

BASE, REVISION = "base_model_name_or_path", "revision"
_ALWAYS = frozenset({"peft_type", "task_type", "inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules"})
"""What people look for in the file."""
_WRITER = "peft_version"


def said_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the keys that stand at LoRA's defaults or say who wrote them, in the order of their names."""
    defaults = LoraConfig().to_dict()
    unsaid = {name for name, value in settings.items() if _plain(value) == _plain(defaults.get(name))} - _ALWAYS
    return {name: _plain(settings[name]) for name in sorted(settings.keys() - unsaid - {_WRITER})}


def for_others(settings: Mapping[str, Any], *, base: str | None) -> dict[str, Any]:
    """The same for people elsewhere: the base by the name that it has there, or null where it has none."""
    said = said_settings(settings) | {BASE: base}
    return {name: value for name, value in sorted(said.items()) if base is not None or name != REVISION}


def write_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Write adapter_config.json."""
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
