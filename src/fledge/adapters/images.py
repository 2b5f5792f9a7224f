"""Names of an adapter's targets in a base that reads images too, so that plain peft takes none of what reads them."""

import re
from collections.abc import Iterable

from torch import nn


def lies_in(name: str, parts: tuple[str, ...]) -> bool:
    """Whether a module is one of these parts, or in one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def without_images(model: nn.Module, targets: str | list[str], *, parts: tuple[str, ...]) -> str | list[str]:
    """The targets as they are where peft takes them for the language model's alone; else a pattern that says so."""
    names = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        taken = [name for name in names if re.fullmatch(targets, name)]
        return _pattern(names, targets, parts=parts) if any(lies_in(name, parts) for name in taken) else targets
    ends = [name for name in names if any(name == each or name.endswith(f".{each}") for each in targets)]
    if not any(lies_in(name, parts) for name in ends):
        return targets
    return _pattern(names, _ending_in(targets), parts=parts)


def in_few_words(model: nn.Module, chosen: list[str], *, parts: tuple[str, ...]) -> str | list[str]:
    """A pattern over full names that takes exactly these modules; where none does, their names."""
    names = [name for name, _ in model.named_modules()]
    pattern = _guarded(_ending_in(dict.fromkeys(name.rpartition(".")[2] for name in chosen)), parts)
    return pattern if _taken(pattern, names) == set(chosen) else chosen


def _ending_in(ends: Iterable[str]) -> str:
    return rf"(?:.*\.)?(?:{'|'.join(map(re.escape, ends))})"


def _guarded(pattern: str, parts: tuple[str, ...]) -> str:
    return rf"(?!(?:{'|'.join(map(re.escape, parts))})(?:\.|$))(?:{pattern})"


def _pattern(names: list[str], pattern: str, *, parts: tuple[str, ...]) -> str | list[str]:
    """The pattern with what reads images left out; where it cannot be put within another one, the names it takes."""
    wanted = {name for name in _taken(pattern, names) if not lies_in(name, parts)}
    try:
        guarded = _guarded(pattern, parts)
        if _taken(guarded, names) == wanted:
            return guarded
    except re.error:  # it begins with flags
        pass
    return sorted(wanted)


def _taken(pattern: str, names: list[str]) -> set[str]:
    return {name for name in names if re.fullmatch(pattern, name)}
