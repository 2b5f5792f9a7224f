"""Names of an adapter's targets in a base that reads images too, so that plain peft takes none of what reads them."""

import re
from collections.abc import Iterable
from pathlib import Path

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from fledge.errors import ModelError


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


def check_held(model: nn.Module, config: LoraConfig, *, folder: Path) -> None:
    """Raises ModelError where an adapter that was made elsewhere needs weights that only images are read with: they are
    not held. A low-rank pair there needs none, and is kept as it is.
    """
    for name, module in model.named_modules():
        if not any(parameter.numel() == 0 for parameter in module.parameters(recurse=False)):
            continue
        is_whole = any(f".{each}." in f".{name}." for each in config.modules_to_save or ())
        if is_whole or (config.use_dora and check_target_module_exists(config, name)):
            what = f"this adapter trains {name}, which reads images, {'whole' if is_whole else 'with DoRA'}"
            cure = "merge it into its base with peft, and give the merged model as model.name_or_path"
            raise ModelError(f"{what}: text does not come by there", where=str(folder), cure=cure)


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
