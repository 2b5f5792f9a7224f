"""From what pydantic found to what a person can mend: the key, its place, what is allowed, the nearest name."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from fledge.config.data import SourceConfig, ValidationFraction
from fledge.config.document import Document, Key
from fledge.config.nearest import nearest_name, same_name
from fledge.config.recipe import Recipe
from fledge.errors import Problem

_SOURCE_KEYS = frozenset({("data", "train"), ("data", "validation"), ("data", "test")})
_TAGS = frozenset({"source", "mixture", "fraction"})
_A_SOURCE = "{path: ..., format: ...}, or a list of such"
_LONGEST_WHOLE = 1e15
"""Floats below it are written as whole numbers without surprise."""
_WORDS_FOR_BOOLS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def explain(error: ValidationError, document: Document) -> dict[Key, Problem]:
    """One problem for each key that pydantic refused, in pydantic's order."""
    problems: dict[Key, Problem] = {}
    for item in error.errors(include_url=False, include_context=False):
        key = key_of(item["loc"])
        # what is wrong with its items is told, and then pydantic counts those that are left
        is_told = item["type"] == "too_short" and any(other[: len(key)] == key for other in problems)
        if key not in problems and not is_told:
            problems[key] = _problem(item["type"], item["loc"], item["input"], document)
    return problems


def key_of(location: Sequence[str | int]) -> Key:
    """The recipe's key of a pydantic location, the names of union branches left out.

    Sections are two deep; only sources go deeper, through a tag and, in a mixture, a position.
    """
    path = tuple(location)
    if path[:2] not in _SOURCE_KEYS:
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
        return Problem(_no_such_key(key), document.where(key), _cure_for_unknown(name, section))
    if kind == "missing" and location[-1] == name:
        return Problem(f"{dotted(key)} is missing", document.where(key[:-1]), f"add it: {_described(section, name)}")
    if not key:
        what = f"a recipe is a mapping of sections ({', '.join(Recipe.model_fields)}); this is {shown(value)}"
        return Problem(what, document.where(key), "`fledge init` writes a recipe to start from")
    allowed = "{path: ..., format: ...}" if isinstance(key[-1], int) else expected(section, name)
    written = document.written.get(key)
    what = f"{dotted(key)} is {_short(written) if written else shown(value)}, expected {allowed}"
    cure = _cure_for_value(value, section, name) or _cure_for_text(value, written, allowed)
    return Problem(what, document.where(key), cure)


def section_of(key: Key, tree: Any) -> type[BaseModel] | None:
    """The typed section that lies at `key`."""
    if not key:
        return Recipe
    if key[:2] in _SOURCE_KEYS:
        if key in _SOURCE_KEYS:
            value = tree["data"][key[1]]
            return ValidationFraction if isinstance(value, dict) and "fraction" in value else SourceConfig
        return SourceConfig
    field = Recipe.model_fields.get(str(key[0])) if len(key) == 1 else None
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _no_such_key(key: Key) -> str:
    return f"{dotted(key[:-1])} has no option {key[-1]}" if len(key) > 1 else f"a recipe has no section {key[0]}"


def _cure_for_unknown(name: str, section: type[BaseModel] | None) -> str:
    names = list(section.model_fields) if section else []
    options = {other: getattr(field.annotation, "model_fields", {}) for other, field in Recipe.model_fields.items()}
    elsewhere = [f"{other}.{same}" for other, known in options.items() if (same := same_name(name, known))]
    nearly = [f"{other}.{near}" for other, known in options.items() if (near := nearest_name(name, known))]
    if section is not Recipe:
        found = [nearest_name(name, names), *elsewhere]
    else:
        found = [*elsewhere, nearest_name(name, names), *nearly]
    means = [option for option in found if option]
    return f"did you mean {means[0]}?" if means else f"there is: {', '.join(names)}"


def _described(section: type[BaseModel] | None, name: str) -> str:
    if section is None or name not in section.model_fields:
        return "see the recipe's page"
    description = section.model_fields[name].description or ""
    if section is Recipe:
        return f"a section `{name}:` with its options below it"
    return f"{expected(section, name)}. {description}"


def _cure_for_value(value: Any, section: type[BaseModel] | None, name: str) -> str:
    """A hint for the slips that people make with YAML; empty where there is none."""
    forms = _forms(section, name)
    types = {form.get("type") for form in forms}
    words = [word for form in forms for word in form.get("enum", [form["const"]] if "const" in form else [])]
    if isinstance(value, float) and value.is_integer() and "integer" in types:
        return f"write {int(value)}" if abs(value) < _LONGEST_WHOLE else ""
    if not isinstance(value, str):
        return ""
    if "boolean" in types and value.lower() in _WORDS_FOR_BOOLS:
        return f"write {_WORDS_FOR_BOOLS[value.lower()]}"
    if "null" in types and value.lower() == "none":
        return "write null"
    if types & {"integer", "number"} and value.strip("+-").replace(".", "", 1).isdigit():
        return "write the number without quotes"
    if "array" in types and "string" not in types:
        return f"write a list: [{value}]"
    nearest = nearest_name(value, [str(word) for word in words])
    return f"did you mean {nearest}?" if nearest else ""


def _cure_for_text(value: Any, written: str | None, allowed: str) -> str:
    """A hint for text that YAML takes for something else; `written` is what stands in the file."""
    if "text" not in allowed.split(" or ") or value is None or isinstance(value, tuple):
        return ""
    is_pair = isinstance(value, dict) and list(value.values()) == [None]
    text = f"{next(iter(value))}: " if is_pair else written
    return f"put it in quotes: {json.dumps(text, ensure_ascii=False)}" if text else "put it in quotes"


def _forms(section: type[BaseModel] | None, name: str) -> list[dict[str, Any]]:
    """The JSON Schemas that a value of this option may meet, one after the other."""
    if section is None or name not in section.model_fields:
        return []
    schema = section.model_json_schema()
    option = schema["properties"][name]
    return [_resolved(form, schema) for form in option.get("anyOf", option.get("oneOf", [option]))]


def _resolved(form: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    found = schema["$defs"][form["$ref"].rsplit("/", 1)[-1]] if "$ref" in form else form
    return dict(found)


def expected(section: type[BaseModel] | None, name: str) -> str:
    """What an option takes, in words: `a number above 0 and at most 1`."""
    if section is Recipe:
        return "a mapping of options"
    if section is not None and section.__name__ == "DataConfig" and ("data", name) in _SOURCE_KEYS:
        return f"{_A_SOURCE}{'' if name == 'train' else ', or null'}{', or {fraction: ...}' * (name == 'validation')}"
    return _one_of([choice for form in _forms(section, name) for choice in _choices(form)]) or "an option"


def _choices(form: dict[str, Any]) -> list[str]:
    """One JSON Schema of an option's value, in words."""
    if "enum" in form or "const" in form:
        return [str(word) for word in form.get("enum", [form.get("const")])]
    match form.get("type"):
        case "integer":
            return ["a whole number" + _range(form)]
        case "number":
            return ["a number" + _range(form)]
        case "array":
            items = form.get("prefixItems") or [form.get("items", {})]
            count = f"{len(items)} times " if "prefixItems" in form else ""
            return [f"a list of {count}{_one_of(_choices(items[0]))}"]
        case "boolean":
            return ["true", "false"]
        case "object" if "additionalProperties" in form and "properties" not in form:
            return ["a mapping of names to text"]
        case "string":
            return ["text"]
        case "null":
            return ["null"]
    return ["a mapping of options"]


def _range(form: dict[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {form[key]}" for key, word in words.items() if key in form]
    return f" {' and '.join(bounds)}" if bounds else ""


def _one_of(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]]) if len(choices) > 1 else "".join(choices)


def shown(value: Any) -> str:
    """A value as an error shows it: short, and as YAML would have it."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        text = str(value)
    return _short(text)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
