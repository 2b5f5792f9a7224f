"""From what pydantic found to what a person can mend: the key, its place, what is allowed, the nearest name."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from fledge.config.answer import answer_unknown
from fledge.config.data import SourceConfig, ValidationFraction
from fledge.config.document import Document, Key
from fledge.config.forms import SOURCE_KEYS, expected
from fledge.config.mend import Wrong, cure_for
from fledge.config.recipe import Recipe
from fledge.errors import Problem

_MEANT = "did you mean "
_TAGS = frozenset({"source", "mixture", "fraction"})


def explain(error: ValidationError, document: Document) -> dict[Key, Problem]:
    """One problem for each key that pydantic refused, in pydantic's order."""
    problems: dict[Key, Problem] = {}
    for item in error.errors(include_url=False, include_context=False):
        key = key_of(item["loc"])
        # what is wrong with its items is told, and then pydantic counts those that are left
        is_told = item["type"] == "too_short" and any(other[: len(key)] == key for other in problems)
        if key not in problems and not is_told:
            problems[key] = _problem(item["type"], item["loc"], item["input"], document)
    return _once(_as_share(problems, document), error)


def _once(problems: dict[Key, Problem], error: ValidationError) -> dict[Key, Problem]:
    """Without what is missing because it stands there under another name."""
    missing = {key_of(item["loc"]) for item in error.errors(include_url=False) if item["type"] == "missing"}
    meant = {_meant(key, problem.cure) for key, problem in problems.items() if problem.cure.startswith(_MEANT)}
    return {key: problem for key, problem in problems.items() if key not in missing & meant}


def _meant(key: Key, cure: str) -> Key:
    """The key that a cure gives to the one at `key`: a bare name is of the same section."""
    name = cure[len(_MEANT) :].rstrip("?")
    return tuple(name.split(".")) if "." in name else (*key[:-1], name)


def _as_share(problems: dict[Key, Problem], document: Document) -> dict[Key, Problem]:
    """A validation that holds one number and no path was meant as a share of the training rows: one problem."""
    key = ("data", "validation")
    value = value_at(key, document.tree, otherwise=None)
    if (
        not isinstance(value, dict)
        or {"path", "fraction"} & set(value)
        or len(value) != 1
        or key + tuple(value) not in problems
    ):
        return problems
    (number,) = value.values()
    cure = cure_for(Wrong(number, key, section_of(("data",), document.tree)))
    if isinstance(number, str | bool) or "fraction:" not in cure:
        return problems
    others = {other: problem for other, problem in problems.items() if other[:2] != key}
    what = f"data.validation is {shown(value)}, expected {expected(section_of(('data',), document.tree), 'validation')}"
    return others | {key: Problem(what, document.where(key), cure)}


def key_of(location: Sequence[str | int]) -> Key:
    """The recipe's key of a pydantic location, the names of union branches left out.

    Sections are two deep; only sources go deeper, through a tag and, in a mixture, a position.
    """
    path = tuple(location)
    if path[:2] not in SOURCE_KEYS:
        return path[:2]
    rest = path[3:] if path[2:3] and path[2] in _TAGS else path[2:]
    depth = 2 if rest and isinstance(rest[0], int) else 1
    return path[:2] + rest[:depth]


def dotted(key: Key) -> str:
    """A key as it is written on the command line."""
    return ".".join(str(part) for part in key)


def _problem(kind: str, location: Key, value: Any, document: Document) -> Problem:
    key = key_of(location)
    section = section_of(key[:-1], document.tree)
    name = str(key[-1]) if key else ""
    if kind == "extra_forbidden":
        cure = answer_unknown(name, value, section=section, where=dotted(key[:-1]))
        return Problem(_no_such_key(key), document.where(key), cure)
    if kind == "missing" and location[-1] == name:
        return Problem(f"{dotted(key)} is missing", document.where(key[:-1]), f"add it: {_described(section, name)}")
    if not key:
        what = f"a recipe is a mapping of sections ({', '.join(Recipe.model_fields)}); this is {shown(value)}"
        return Problem(what, document.where(key), "`fledge init` writes a recipe to start from")
    allowed = "{path: ..., format: ...}" if isinstance(key[-1], int) else expected(section, name)
    written = document.written.get(key)
    what = f"{dotted(key)} is {_short(written) if written else shown(value)}, expected {allowed}"
    train = value_at(("data", "train"), document.tree, otherwise=None)
    whole = value_at(key, document.tree, otherwise=value)
    return Problem(what, document.where(key), cure_for(Wrong(whole, key, section, written, train)))


def value_at(key: Key, tree: Any, *, otherwise: Any) -> Any:
    """The value of a key in a tree, or `otherwise` where there is none: pydantic tells of one item of a list alone."""
    for part in key:
        is_there = part in tree if isinstance(tree, dict) else isinstance(tree, tuple) and isinstance(part, int)
        if not is_there:
            return otherwise
        tree = tree[part]
    return tree


def section_of(key: Key, tree: Any) -> type[BaseModel] | None:
    """The typed section that lies at `key`."""
    if not key:
        return Recipe
    if key[:2] in SOURCE_KEYS:
        if key in SOURCE_KEYS:
            value = tree["data"][key[1]]
            is_share = key[1] == "validation" and isinstance(value, dict) and "fraction" in value
            return ValidationFraction if is_share else SourceConfig
        return SourceConfig
    field = Recipe.model_fields.get(str(key[0])) if len(key) == 1 else None
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _no_such_key(key: Key) -> str:
    return f"{dotted(key[:-1])} has no option {key[-1]}" if len(key) > 1 else f"a recipe has no section {key[0]}"


def _described(section: type[BaseModel] | None, name: str) -> str:
    if section is None or name not in section.model_fields:
        return "see the recipe's page"
    description = section.model_fields[name].description or ""
    if section is Recipe:
        return f"a section `{name}:` with its options below it"
    return f"{expected(section, name)}. {description}"


def shown(value: Any) -> str:
    """A value as an error shows it: short, and as YAML would have it."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        text = str(value)
    return _short(text)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
