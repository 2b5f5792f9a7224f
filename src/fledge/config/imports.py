"""The small BLOOM tool's YAML as a recipe, with what became of each of its keys."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from fledge.config.answer import foreign_answer, is_section
from fledge.config.document import Document, Key
from fledge.config.dump import dump_tree
from fledge.config.explain import dotted, shown
from fledge.config.load import conflicts_beside, in_order, validate
from fledge.config.nearest import nearest_name
from fledge.config.paths import is_local
from fledge.config.recipe import Recipe
from fledge.errors import Problem, RecipeError

Verdict = Literal["translated", "not needed"]


@dataclass(frozen=True, slots=True)
class Accounted:
    """What became of one key of the other tool's file."""

    key: str
    verdict: Verdict
    to: str = ""
    why: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.verdict}{f' to {self.to}' * bool(self.to)}{f' ({self.why})' * bool(self.why)}"


@dataclass(frozen=True, slots=True)
class Imported:
    """A recipe as YAML text, the account at its top as comments."""

    recipe: str
    account: tuple[Accounted, ...]


_OF_NONE = "none of its keys is one of the small BLOOM tool's, whose files alone are translated"
_FROM_START = "write a recipe with `fledge init`, and put into it what is told here of each key"


class _RefusedError(Exception):
    """A value that has no like in a recipe; the text says what, the second argument is the cure."""


Values = dict[str, Any]
"""The other file's values by dotted key."""
Settings = dict[str, Any]
"""Recipe keys, dotted, and their values."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one key is taken: the settings it makes of itself and of its neighbours, and what is to be said."""

    settings: Callable[[Any, Values], Settings]
    why: str = ""
    is_needed: bool = False


def translate(document: Document) -> Imported:
    """The recipe that says what `document`, a file of the small BLOOM tool, says.

    Every key is translated or not needed, and accounted for. Raises RecipeError with every key that is unknown, every
    value that a recipe cannot express or that is out of range, every key that is missing, and values that cannot work
    together, with file and line.
    """
    problems = list(document.problems)
    is_of_tool = _has_known(document.tree)
    if not is_of_tool and document.tree:
        problems.append(Problem(_OF_NONE, document.where(()), _FROM_START))
    given = _flat(document.tree, (), problems, document)
    values = {key: value for key, value in given.items() if _key(key) not in document.unreadable}
    tree: dict[str, Any] = {"model": {}, "data": {"overlong": "split"}}
    recipe = Document(tree, {(): document.where(())})
    origins: dict[Key, str] = {}
    account = []
    for key, value in values.items():
        rule, where = RULES[key], document.where(_key(key))
        try:
            settings = rule.settings(value, values)
        except _RefusedError as refusal:
            problems.append(Problem(f"{key}: {refusal.args[0]}", where, refusal.args[1]))
            continue
        for setting, translated in settings.items():
            section, name = setting.split(".")
            tree.setdefault(section, {})[name] = translated
            recipe.marks |= {(section, name): where, (section,): recipe.marks.get((section,), where)}
            origins[section, name] = key
        to = ", ".join(f"{setting} = {shown(setting_value)}" for setting, setting_value in settings.items())
        account.append(Accounted(key, "translated" if settings else "not needed", to, rule.why))
    missing = [key for key, rule in RULES.items() if is_of_tool and rule.is_needed and key not in given]
    problems += [Problem(f"{key} is missing", document.where(()), "a recipe cannot do without it") for key in missing]
    problems += _problems_of(recipe, origins)
    if problems:
        raise RecipeError(in_order(problems))
    head = [f"{document.where(())}, translated by `fledge import`:", *(f"  {line}" for line in account)]
    comments = "".join(f"# {_on_one_line(line)}\n" for line in head)
    ordered = {section: tree[section] for section in Recipe.model_fields if section in tree}
    return Imported(f"{comments}\n{dump_tree(ordered)}", tuple(account))


def _problems_of(recipe: Document, origins: dict[Key, str]) -> list[Problem]:
    """What is wrong with the translated recipe, told of the keys that it was translated from."""
    valid, refused = validate(recipe)
    # what is not there could not be translated, which is told already
    told = {key: problem for key, problem in refused.items() if key[:2] in origins}
    problems = [_of(origins[key[:2]], dotted(key[:2]), problem) for key, problem in told.items()]
    for problem in conflicts_beside(refused, recipe, recipe=valid):
        setting = problem.what.partition(":")[0]
        problems.append(_of(origins.get(_key(setting), setting), setting, problem))
    return problems


def _key(dotted_key: str) -> Key:
    return tuple(dotted_key.split("."))


def _of(origin: str, setting: str, problem: Problem) -> Problem:
    """The problem of a setting as that of the key it came from."""
    if origin == setting:
        return problem
    return replace(problem, what=f"{origin}: {problem.what}", cure=problem.cure.replace(f"{setting}: ", f"{origin}: "))


def _on_one_line(text: str) -> str:
    """Text that cannot leave the comment it is put into."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _has_known(tree: Any, key: Key = ()) -> bool:
    """Whether one of the tool's keys is in the file, or a section of its own that holds keys."""
    here = dotted(key)
    if here in RULES or not isinstance(tree, dict):
        return here in RULES
    return any(_has_known(value, (*key, name)) for name, value in tree.items())


def _flat(tree: Any, key: Key, problems: list[Problem], document: Document) -> Values:
    """Values by dotted key, those that no rule knows turned into problems."""
    values: Values = {}
    for name, value in tree.items():
        here = dotted((*key, name))
        if here in RULES:
            values[here] = value
        elif isinstance(value, dict) and any(rule.startswith(f"{here}.") for rule in RULES):
            values |= _flat(value, (*key, name), problems, document)
        elif isinstance(value, dict) and value and is_section(name):
            _flat(value, (*key, name), problems, document)
        else:
            problems.append(_unknown(here, value, document.where((*key, name))))
    return values


def _unknown(key: str, value: Any, where: str) -> Problem:
    inside = [rule for rule in RULES if rule.startswith(f"{key}.")]
    if inside:
        return Problem(f"{key} is {shown(value)}, expected a mapping", where, f"in it there is: {', '.join(inside)}")
    ours, nearest = foreign_answer(key.rpartition(".")[2], value), nearest_name(key, RULES)
    cure = f"did you mean {nearest}?" if nearest else "remove it, if your training does not depend on it"
    is_neighbour = nearest is not None and "." in key and nearest.rpartition(".")[0] == key.rpartition(".")[0]
    if ours and not is_neighbour:
        cure = f"in a recipe {ours}" if ours.startswith("write ") else ours
    return Problem(f"{key} is not a key of the small BLOOM tool's that can be translated", where, cure)


def _to(setting: str) -> Callable[[Any, Values], Settings]:
    return lambda value, _: {setting: value}


def _nothing(_: Any, __: Values) -> Settings:
    return {}


def _number(value: Any, key: str, *, is_whole: bool) -> Any:
    wanted = int if is_whole else int | float
    if isinstance(value, bool) or not isinstance(value, wanted) or value <= 0:
        kind = "whole number" if is_whole else "number"
        raise _RefusedError(f"{shown(value)} where {key} must be a {kind} above 0", "write it without quotes")
    return value


def _sources(value: Any, _: Values) -> Settings:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise _RefusedError(f"{shown(value)} is no list of file names", "write a list: [README-1.txt, README-2.txt]")
    # the small BLOOM tool knows files only; a bare name would be taken for a hub id where no such file is
    paths = [name if is_local(name) else f"./{name}" for name in names]
    sources = tuple({"path": path, "format": "text"} for path in paths)
    return {"data.train": sources if len(sources) > 1 else sources[0]}


def _alpha(value: Any, values: Values) -> Settings:
    rank = _number(values.get("model.lora.lora_dim", 16), "model.lora.lora_dim", is_whole=True)
    return {"lora.lora_alpha": float(_number(value, "model.lora.lora_scale", is_whole=False) * rank)}


def _targets(value: Any, _: Values) -> Settings:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise _RefusedError(f"{shown(value)} names no layer", "write its name: query_key_value, or a list of names")
    return {"lora.target_modules": names}


def _rows(value: Any, values: Values) -> Settings:
    rows = _number(value, "train.batch_size", is_whole=True)
    times = _number(values.get("train.accumulate_grad_batches", 1), "train.accumulate_grad_batches", is_whole=True)
    return {"train.micro_batch_rows": rows, "train.global_batch_size": rows * times}


def _accumulate(value: Any, values: Values) -> Settings:
    times = _number(value, "train.accumulate_grad_batches", is_whole=True)
    rows = _number(values.get("train.batch_size", 1), "train.batch_size", is_whole=True)
    return {"train.global_batch_size": rows * times}


def _schedule(value: Any, _: Values) -> Settings:
    known = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}
    if not isinstance(value, str) or value not in known:
        raise _RefusedError(f"there is no schedule {shown(value)} in a recipe", f"use one of {', '.join(known)}")
    return {"train.lr_scheduler": known[value]}


def _clip(value: Any, _: Values) -> Settings:
    is_off = value is None or (value == 0 and not isinstance(value, bool))
    return {"train.max_grad_norm": None if is_off else value}


RULES = {
    "data.filenames": _Rule(_sources, "plain text; relative paths start from the recipe's folder", is_needed=True),
    "data.max_length": _Rule(_to("data.max_length"), "longer texts are split into rows of this length, none is lost"),
    "data.random_state": _Rule(_to("train.seed"), "it decides the order of the rows, and the adapter's start besides"),
    "model.transformer.pretrained_model_name_or_path": _Rule(_to("model.name_or_path"), is_needed=True),
    "model.lora.lora_dim": _Rule(_to("lora.r")),
    "model.lora.lora_scale": _Rule(
        _alpha,
        "taken as the multiplier of the adapter's output, so lora_alpha = lora_scale * lora_dim; "
        "if it was alpha itself, set lora.lora_alpha to it",
    ),
    "model.lora.attention_layer_name": _Rule(_targets),
    "optim.optimizer.lr": _Rule(_to("train.learning_rate")),
    "optim.optimizer.betas": _Rule(_to("train.adam_betas")),
    "optim.optimizer.eps": _Rule(_to("train.adam_eps")),
    "optim.optimizer.weight_decay": _Rule(_to("train.weight_decay")),
    "optim.scheduler.name": _Rule(_schedule),
    "optim.scheduler.num_warmup_steps": _Rule(_to("train.warmup_steps"), "counted in optimiser steps"),
    "optim.scheduler.num_training_steps": _Rule(_to("train.max_steps"), "counted in optimiser steps"),
    "train.batch_size": _Rule(
        _rows, "rows computed at once; the optimiser's batch is batch_size * accumulate_grad_batches"
    ),
    "train.accumulate_grad_batches": _Rule(
        _accumulate, "batch_size * accumulate_grad_batches rows in one optimiser step"
    ),
    "train.gradient_clip_val": _Rule(_clip),
    "train.gradient_checkpointing": _Rule(_to("train.gradient_checkpointing")),
    "train.log_every_n_steps": _Rule(_nothing, "every step is in the run's events.jsonl"),
    "train.save_every_n_train_steps": _Rule(_to("train.save_every_steps")),
}
