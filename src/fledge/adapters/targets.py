"""Which modules get an adapter: all-linear, a list of names, or a regular expression."""

import difflib
import re
from dataclasses import dataclass, replace

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba as check_for_mamba
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fledge.adapters.images import in_few_words, lies_in, without_images
from fledge.adapters.skeleton import lost_targets
from fledge.errors import ModelError
from fledge.facts import ModelFacts
from fledge.ops.frozen_linear import FrozenLinear

_KEY = "lora.target_modules"
ALL_LINEAR = "all-linear"
_NUMBERED = re.compile(r"^.*\.\d+\.")
"""What comes before a module's name within its block."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets in peft's form."""

    names: str | list[str]
    left_out: tuple[str, ...] = ()
    """Last names of what all-linear would take and cannot: what computes more than a product, and what peft refuses."""
    lost: tuple[str, ...] = ()
    """The same of what plain peft would not load, as names within a block."""


def check_targets(model: nn.Module, targets: str | tuple[str, ...], *, facts: ModelFacts) -> Targets:
    """The targets, each of them known to match, and none of them in what reads images: peft matches the ends of names,
    and there are such names there too. Raises ModelError naming what the model has.
    """
    if targets == ALL_LINEAR:
        return _all_linear(model, facts.image_parts)
    return Targets(without_images(model, _checked(model, targets, facts=facts), parts=facts.image_parts))


def _all_linear(model: nn.Module, image_parts: tuple[str, ...]) -> Targets:
    found = all_linears(model, image_parts)
    if image_parts:
        return replace(found, names=in_few_words(model, list(found.names), parts=image_parts))
    return found if found.left_out or found.lost else Targets(ALL_LINEAR)


def all_linears(model: nn.Module, image_parts: tuple[str, ...]) -> Targets:
    """What all-linear means, by full names, and what it leaves out of the language model.

    What peft takes for it, but for modules that an adapter would break: a router gives more than a product, and the
    fused kernels of Mamba kinds go past some of their modules. But for those, too, whose adapters plain peft would not
    load, for what is trained must be what is exported. And but for what only images are read with.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    linears = {name: module for name, module in found if not lies_in(name, image_parts)}
    refused = {last for last in {_last(name) for name in linears} if _peft_refuses(model, last)}
    kept = [name for name, module in linears.items() if _last(name) not in refused and _is_product(module)]
    left_out = tuple(dict.fromkeys(_last(name) for name in linears if name not in kept))
    lost = lost_targets(model, kept) if isinstance(model, PreTrainedModel) else ()
    within = dict.fromkeys(_NUMBERED.sub("", name) for name in lost)
    return Targets([name for name in kept if name not in lost], left_out, tuple(within))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _peft_refuses(model: nn.Module, name: str) -> bool:
    """Whether peft adapts no module of this name in a model of this kind."""
    try:
        check_for_mamba(LoraConfig(), model, name)
    except ValueError:
        return True
    return False


def _is_product(module: nn.Module) -> bool:
    """Whether a linear gives its input times its weight, and its bias. A class of the library's is believed, one that
    was made from it is asked.
    """
    if type(module) in (nn.Linear, Conv1D, FrozenLinear) or not isinstance(module, nn.Linear):
        return True
    weight, bias = module.weight, module.bias
    if weight.device.type == "meta":
        return False
    x = torch.linspace(-1, 1, 2 * weight.shape[1], dtype=weight.dtype, device=weight.device).view(1, 2, -1)
    try:
        with torch.no_grad():
            out, wanted = module(x), torch.nn.functional.linear(x, weight, bias)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return isinstance(out, torch.Tensor) and out.shape == wanted.shape and torch.allclose(out, wanted, rtol=0.05)


def _checked(model: nn.Module, targets: str | tuple[str, ...], *, facts: ModelFacts) -> str | list[str]:
    names = [name for name, _ in model.named_modules() if name and not lies_in(name, facts.image_parts)]
    if isinstance(targets, str):
        _check_regex(targets, names, facts)
        return targets
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise _no_match(f"no module is named {target}", target, facts)
    return list(targets)


def check_saved(model: nn.Module, chosen: tuple[str, ...], *, image_parts: tuple[str, ...]) -> None:
    """Raises ModelError where a module that is to be trained whole is not there, which peft would leave out in silence,
    or reads images, which peft would take along.
    """
    names = [name for name, _ in model.named_modules() if name]
    for each in chosen:
        if seen := next((name for name in names if name.endswith(each) and lies_in(name, image_parts)), None):
            own = [name for name in names if name.endswith(each) and not lies_in(name, image_parts)]
            cure = f"write the full name, as {own[-1]}" if own else f"remove {each}"
            what = f"{each} is {seen} too, which reads images: rows of text do not train it"
            raise ModelError(what, where="lora.modules_to_save", cure=cure)
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
