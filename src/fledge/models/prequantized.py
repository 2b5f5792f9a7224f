"""Bases whose files are quantised already: read where the library makes their weights whole, else refused in words."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from fledge.errors import ModelError

_WHOLE = "dequantize"
"""The library's name of the setting with which it makes weights whole as it loads them."""


def method_of(described: Any) -> str | None:
    """By which method a base's files are quantised, as its configuration names it; None where they are not."""
    theirs = _settings(described)
    if theirs is None:
        return None
    if theirs.get("load_in_4bit") or theirs.get("load_in_8bit"):
        return "bitsandbytes"
    return str(theirs.get("quant_method") or "a method that it does not name")


def make_whole(described: Any, *, source: str, where: str) -> str | None:
    """Ask the library to make a base's weights whole as it loads them, where the base comes quantised; by which method.

    `described` is its configuration, which is changed. Raises ModelError where the library cannot, with what to take
    instead.
    """
    method = method_of(described)
    if method is None:
        return None
    kind = AUTO_QUANTIZATION_CONFIG_MAPPING.get(method)
    if kind is None or _WHOLE not in inspect.signature(kind.__init__).parameters:
        what = f"this base comes quantised by {method}, and transformers does not make such weights whole"
        raise ModelError(what, where=where, cure=f"{_instead(source)} with model.quantization: nf4, or int8")
    for config in (described, described.get_text_config()):
        if getattr(config, "quantization_config", None) is not None:
            config.quantization_config = {**_as_dict(config.quantization_config), _WHOLE: True}
    return method


def _settings(described: Any) -> dict[str, Any] | None:
    for config in (described, described.get_text_config()):
        found = getattr(config, "quantization_config", None)
        if found is not None:
            return _as_dict(found)
    return None


def _as_dict(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, Mapping) else dict(found.to_dict())


def _instead(source: str) -> str:
    """What to write for the base that this one was made of, as its card names it."""
    named = _base_in_card(Path(source) / "README.md")
    return f"write model.name_or_path: {named}" if named else "give the base that it was made of"


def _base_in_card(card: Path) -> str | None:
    """What a model card's header says of the base; None where it says nothing that can be read."""
    try:
        found = metadata_load(card) if card.is_file() else None
    except (OSError, ValueError, TypeError):
        return None
    named = found.get("base_model") if isinstance(found, Mapping) else None
    named = named[0] if isinstance(named, list) and named else named
    return named if isinstance(named, str) and named.isprintable() else None
