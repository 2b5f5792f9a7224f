"""What an option takes, read from its JSON Schema and told in words."""

import functools
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from fledge.config.recipe import Recipe

SOURCE_KEYS = frozenset({("data", "train"), ("data", "validation"), ("data", "test")})
_YES_OR_NO = frozenset({"yes", "no", "on", "off", "true", "false"})
_A_SOURCE = "{path: ..., format: ...}, or a list of such"


def expected(section: type[BaseModel] | None, name: str) -> str:
    """What an option takes, in words: `a number above 0 and at most 1`."""
    if section is Recipe:
        return "a mapping of options"
    if section is not None and section.__name__ == "DataConfig" and ("data", name) in SOURCE_KEYS:
        return f"{_A_SOURCE}{'' if name == 'train' else ', or null'}{', or {fraction: ...}' * (name == 'validation')}"
    return one_of([choice for form in forms(section, name) for choice in _choices(form)]) or "an option"


def forms(section: type[BaseModel] | None, name: str) -> list[dict[str, Any]]:
    """The JSON Schemas that a value of this option may meet, one after the other."""
    if section is None or name not in section.model_fields:
        return []
    schema = _schema_of(section)
    option = schema["properties"][name]
    return [_resolved(form, schema) for form in option.get("anyOf", option.get("oneOf", [option]))]


@functools.cache
def _schema_of(section: type[BaseModel]) -> dict[str, Any]:
    return section.model_json_schema()


def words_of(form: dict[str, Any]) -> list[Any]:
    """The values that a form allows by name; none where it allows a whole kind of values."""
    return list(form.get("enum", [form["const"]] if "const" in form else []))


def fits(value: Any, section: type[BaseModel], *, name: str) -> bool:
    """Whether a value is of a kind that this option may take, in its own form or in one that is mended.

    Text may mean a number, a list or true and false; a section takes a mapping alone.
    """
    if value is None:
        return True
    if section is Recipe:
        return isinstance(value, dict)
    if section.__name__ == "DataConfig" and ("data", name) in SOURCE_KEYS:
        return not isinstance(value, bool) or name == "validation"
    return any(_fits_form(value, form) for form in forms(section, name))


def _fits_form(value: Any, form: dict[str, Any]) -> bool:
    kind, words = form.get("type"), words_of(form)
    if isinstance(value, dict):
        return kind == "object"
    if isinstance(value, tuple):
        return kind == "array"
    if isinstance(value, bool):
        return kind == "boolean" or any(word is value for word in words)
    if isinstance(value, int | float):
        return kind in ("integer", "number") or (kind == "array" and item_form(form).get("type") == "number")
    text = str(value).strip().lower()
    if kind in ("integer", "number"):
        return bool(re.match(r"[-+.]?\d", text))
    if kind == "boolean":
        return text in _YES_OR_NO
    return kind in ("string", "array") or bool(words)


def item_form(form: dict[str, Any]) -> dict[str, Any]:
    """The form of a list's items."""
    return dict((form.get("prefixItems") or [form.get("items", {})])[0])


def one_of(choices: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(choices[:-1]), choices[-1]]) if len(choices) > 1 else "".join(choices)


def _resolved(form: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    found = schema["$defs"][form["$ref"].rsplit("/", 1)[-1]] if "$ref" in form else form
    return dict(found)


def _choices(form: dict[str, Any]) -> list[str]:
    """One JSON Schema of an option's value, in words."""
    if "enum" in form or "const" in form:
        return [str(word).lower() if isinstance(word, bool) else str(word) for word in words_of(form)]
    match form.get("type"):
        case "integer":
            return ["a whole number" + _range(form)]
        case "number":
            return ["a number" + _range(form)]
        case "array":
            count = f"{len(form['prefixItems'])} times " if "prefixItems" in form else ""
            return [f"a list of {count}{one_of(_choices(item_form(form)))}"]
        case "boolean":
            return ["true", "false"]
        case "object" if "additionalProperties" in form and "properties" not in form:
            return [f"a mapping of names to {_texts_or_values(form['additionalProperties'])}"]
        case "string":
            return ["text"]
        case "null":
            return ["null"]
    return ["a mapping of options"]


def _texts_or_values(form: dict[str, Any]) -> str:
    """What a mapping's names may have: text and lists of it in words, anything else as values."""
    choices = [choice for part in form.get("anyOf", [form]) for choice in _choices(part)]
    return one_of(choices) if set(choices) <= {"text", "a list of text"} else "values"


def values_in(form: dict[str, Any]) -> str:
    """What a mapping's names may have, in words."""
    words = {"string": "text", "integer": "a number", "number": "a number", "boolean": "true or false", "null": "null"}
    parts = form.get("anyOf", [form])
    singles = dict.fromkeys(words[part["type"]] for part in parts if part.get("type") in words)
    has_list = any(part.get("type") == "array" for part in parts)
    return one_of([*singles, *(["a list of such"] if has_list else [])])


def _range(form: dict[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {form[key]}" for key, word in words.items() if key in form]
    return f" {' and '.join(bounds)}" if bounds else ""
