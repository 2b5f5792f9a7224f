"""Which modules get an adapter: all-linear, a list of names, or a regular expression."""

import difflib
import re

from torch import nn

from fledge.errors import ModelError
from fledge.facts import ModelFacts

_KEY = "lora.target_modules"
ALL_LINEAR = "all-linear"


def check_targets(model: nn.Module, targets: str | tuple[str, ...], *, facts: ModelFacts) -> str | list[str]:
    """The targets in peft's form, each of them known to match. Raises ModelError naming what the model has."""
    if targets == ALL_LINEAR:
        return ALL_LINEAR
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(targets, str):
        _check_regex(targets, names, facts)
        return targets
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise _no_match(f"no module is named {target}", target, facts)
    return list(targets)


def check_saved(model: nn.Module, chosen: tuple[str, ...]) -> None:
    """Raises ModelError where a module that is to be trained whole is not there; peft would leave it out in silence."""
    names = [name for name, _ in model.named_modules() if name]
    for each in chosen:
        if not any(name == each or name.endswith(f".{each}") for name in names):
            last_names = sorted({name.rsplit(".", 1)[-1] for name in names if not name.rsplit(".", 1)[-1].isdigit()})
            near = difflib.get_close_matches(each, last_names, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            cure = f"{hint}this model's modules are {', '.join(last_names)}"
            raise ModelError(f"no module is named {each}", where="lora.modules_to_save", cure=cure)


def _check_regex(pattern: str, names: list[str], facts: ModelFacts) -> None:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        cure = "write all-linear, a list of names, or a regular expression over full names"
        raise ModelError(f"not a regular expression: {error}", where=f"{_KEY}: {pattern}", cure=cure) from error
    if not any(compiled.fullmatch(name) for name in names):
        last_names = {name.rpartition(".")[2] for name in names}
        if pattern in last_names:
            cure = f"write a list, which takes the ends of names: [{pattern}]"
        elif any(re.fullmatch(f"(.*\\.)?({pattern})", name) for name in names):
            cure = f"write '(.*\\.)?({pattern})', which takes the ends of names"
        else:
            raise _no_match("the regular expression matches no module's full name", pattern, facts)
        raise ModelError("the regular expression matches no module's full name", where=_KEY, cure=cure)


def _no_match(what: str, target: str, facts: ModelFacts) -> ModelError:
    known = ", ".join(facts.linear_names)
    near = difflib.get_close_matches(target, facts.linear_names, n=1)
    hint = f"did you mean {near[0]}? " if near else f"write {ALL_LINEAR}, which takes all of them: "
    return ModelError(what, where=_KEY, cure=f"{hint}this model's linear layers are {known}")
