"""An adapter that lies in a base's own folder or repository: it is named, and it is never loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from fledge.errors import ModelError

FILES = frozenset({ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME})
"""An adapter's own files: what lies in a base's folder under these names is no part of the base."""
ALONE: Mapping[str, Any] = {"adapter_kwargs": {"subfolder": ".no-adapter"}}
"""What `from_pretrained` is given so that it loads a base alone.

Without it the library looks for adapter_config.json where the weights lie, and loads that adapter too; from a hub id
it loads the adapter's own base instead. The library has no switch for this. It looks in a subfolder that is not there.
"""


def lies_beside(source: str, *, revision: str) -> bool:
    """Whether an adapter lies beside a base's weights.

    A hub that is out of reach has none that could be seen, and none that could be loaded.
    """
    folder = Path(source)
    return (folder / ADAPTER_CONFIG_NAME).is_file() if folder.is_dir() else _on_hub(source, revision) is not None


def note_beside(source: str, *, name: str, revision: str) -> str | None:
    """What a person should know of an adapter that lies beside a base's weights; None where there is none."""
    if not lies_beside(source, revision=revision):
        return None
    start = source if Path(source).is_dir() else "FOLDER"
    what = f"an adapter lies beside the base's weights in {name} ({ADAPTER_CONFIG_NAME}): it is not loaded"
    return f"{what}; lora.init_from: {start} would start from it"


def note_for_others(source: str, *, name: str, revision: str) -> str | None:
    """What somebody should know who puts an adapter on this base without Fledge; None where there is nothing."""
    if not lies_beside(source, revision=revision):
        return None
    what = f"an adapter lies beside the base's weights in {name}, and transformers loads it along with that base"
    return f"{what}: take {ADAPTER_CONFIG_NAME} out of there where this export is used without Fledge"


def check_alone(model: PreTrainedModel, *, where: str) -> None:
    """Raises ModelError where the library has loaded an adapter with the base in spite of `ALONE`."""
    if getattr(model, "_hf_peft_config_loaded", False):
        what = "the library has loaded the adapter that lies beside the base's weights"
        raise ModelError(what, where=where, cure=f"move {ADAPTER_CONFIG_NAME} out of the base's folder")


def _on_hub(source: str, revision: str) -> str | None:
    return cached_file(
        source,
        ADAPTER_CONFIG_NAME,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
