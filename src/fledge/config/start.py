"""`lora.init_from`: what a recipe leaves open of its adapter is taken from the one that training starts from."""

from pathlib import Path
from typing import Any

from fledge.config.adapter_file import Described, adapter_in, describe_adapter
from fledge.config.document import Document
from fledge.config.dump import scalar
from fledge.errors import ModelError, Problem

SHAPE = ("r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "modules_to_save")
"""Options that an adapter has once it is there."""
FROM_ADAPTER = (*SHAPE, "lora_dropout")
"""Options that are the adapter's where the recipe does not write them; dropout may be another one."""
_LONGEST = 120


def take_from_start(document: Document) -> list[Problem]:
    """Put into the document what its `lora` section leaves open and the adapter says, and return what is wrong.

    What is written beside it must be what the adapter has. Where the adapter is not there, nothing is taken: who looks
    for it says so.
    """
    lora = document.tree.get("lora")
    named = lora.get("init_from") if isinstance(lora, dict) else None
    if not isinstance(lora, dict) or not isinstance(named, str) or not Path(named).is_dir():
        return []
    key, problems = ("lora", "init_from"), []
    if "init_lora_weights" in lora:
        what = "lora.init_lora_weights: has no effect beside lora.init_from, whose weights are the start"
        problems.append(Problem(what, document.where(("lora", "init_lora_weights")), "remove it"))
    try:
        described = describe_adapter(adapter_in(Path(named)))
    except ModelError as error:
        [found] = error.problems
        return [*problems, Problem(f"lora.init_from: {found.where}: {found.what}", document.where(key), found.cure)]
    for name, value in values_of(described).items():
        if name not in lora:
            lora[name] = value
        elif name in SHAPE and not _is_same(name, lora[name], value):
            has = scalar(value) if len(scalar(value)) <= _LONGEST else f"{scalar(value)[:_LONGEST]} ..."
            what = f"lora.{name}: the adapter of lora.init_from has {name}: {has}"
            cure = "remove it: the adapter decides it"
            problems.append(Problem(what, document.where(("lora", name)), cure))
    return problems


def values_of(described: Described) -> dict[str, Any]:
    """The recipe's options of an adapter, as its settings have them."""
    found = {name: described.settings[name] for name in FROM_ADAPTER}
    for name in ("target_modules", "modules_to_save"):
        value = found[name]
        found[name] = value if isinstance(value, str) and name == "target_modules" else _names(value)
    return found | {name: float(found[name]) for name in ("lora_alpha", "lora_dropout")}


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(sorted(value or ()))


def _is_same(name: str, written: Any, value: Any) -> bool:
    """Whether a recipe writes what the adapter has. all-linear is held against the modules once the base is there."""
    if name == "target_modules" and written == "all-linear":
        return True
    if isinstance(written, tuple) and isinstance(value, tuple):
        return set(written) == set(value)
    return bool(written == value)
