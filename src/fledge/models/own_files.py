"""A base's small files as they lie in its folder or repository: JSON files, word for word, and its Python code."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_imports
from transformers.utils.hub import cached_file

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.locate import locate

_CURE = "mend the file, or fetch the base again"


def own_file(base: ModelConfig, name: str) -> Path | None:
    """Where a file of the base lies on this machine; None where the base has none of this name."""
    found = cached_file(
        locate(base.name_or_path),
        name,
        revision=base.revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def own_json(base: ModelConfig, name: str) -> dict[str, Any] | None:
    """What a JSON file of the base holds; None where there is no such file.

    Raises ModelError where it holds anything else than one JSON object.
    """
    path = own_file(base, name)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name} of the base cannot be read: {error}", where=str(path), cure=_CURE) from error
    if not isinstance(found, dict):
        what = f"{name} of the base holds a {type(found).__name__} where one JSON object belongs"
        raise ModelError(what, where=str(path), cure=_CURE)
    return found


def own_code(base: ModelConfig, described: Mapping[str, Any]) -> dict[str, Path]:
    """By its name, each Python file that `auto_map` of a base's file `described` names, and what these import.

    Code that lies in another repository is left there: `auto_map` says which.
    """
    found: dict[str, Path] = {}
    left = list(_modules(described))
    while left:
        name = f"{left.pop()}.py"
        path = own_file(base, name)
        if name not in found and path is not None:
            found[name] = path
            left += [each.split(".")[0] for each in get_relative_imports(path)]
    return found


def _modules(described: Mapping[str, Any]) -> Iterator[str]:
    named = described.get("auto_map")
    for value in named.values() if isinstance(named, dict) else ():
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str) and "--" not in each and "." in each:
                yield each.rpartition(".")[0]
