"""What to write instead of a name that a recipe does not know: the nearest option, or Fledge's own name for it."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from fledge.config.data import SourceConfig, ValidationFraction
from fledge.config.dump import flow
from fledge.config.foreign import FRACTIONS, IN_SECTION, INSTEAD, NEEDLESS, SAME, SECTIONS, SOURCES
from fledge.config.nearest import folded, nearest_name
from fledge.config.recipe import Recipe
from fledge.config.sources import guessed_source, looks_like_data

_FRACTION = 0.05
"""What to hold out where another tool's value is no share."""


def answer_unknown(name: str, value: Any, *, section: type[BaseModel] | None, where: str) -> str:
    """The cure for `name: value`, which stands in `section` (at the key `where`) and is none of its options.

    In this order: the same name spelt otherwise; the same name in another section; another tool's name; the nearest
    name; all names.
    """
    own = list(section.model_fields) if section else []
    word = folded(name)
    if word in own:
        return f"did you mean {word}?"
    local = IN_SECTION.get("data.train" if section is SourceConfig else where, {}).get(word)
    if local:
        return f"did you mean {local}?"
    if section is SourceConfig and looks_like_data(name):
        source = guessed_source(name) | ({"format": value} if isinstance(value, str) else {})
        return f"write {where}: {flow(source)}" if where.count(".") == 1 else f"write path: {flow(name)}"
    if section is ValidationFraction and word in SourceConfig.model_fields:
        return "remove it, or remove fraction: the fraction is taken of the rows of data.train"
    elsewhere = next((key for key in _all_keys() if key.rpartition(".")[2] == word), None)
    if elsewhere and section is not SourceConfig:
        return f"did you mean {_seen_from(elsewhere, where)}?"
    if (dotted := re.sub(r"\s*[/:>]+\s*", ".", name)) != name and dotted in _all_keys():
        return f"did you mean {dotted}?"
    if "." in name and name in _all_keys():
        return f"a dot does not open a section in a file: write {_nested(name, value)}"
    foreign = _foreign(word, value, where)
    if foreign:
        return foreign
    return _nearest(name, own, section)


def foreign_answer(name: str, value: Any) -> str:
    """What a recipe has for `name: value` of another tool; empty where no tool is known to call anything so."""
    return _foreign(folded(name), value, "")


def _nearest(name: str, own: list[str], section: type[BaseModel] | None) -> str:
    near = nearest_name(name, own)
    if near:
        return f"did you mean {near}?"
    nearly = None if section is SourceConfig else nearest_name(name, [key.rpartition(".")[2] for key in _all_keys()])
    if nearly:
        return f"did you mean {next(key for key in _all_keys() if key.rpartition('.')[2] == nearly)}?"
    return f"there is: {', '.join(own)}"


def _all_keys() -> Iterator[str]:
    """Every option, dotted; those of a source under data.train."""
    sections = {name: field.annotation for name, field in Recipe.model_fields.items()}
    for name, kind in sections.items():
        yield from (f"{name}.{option}" for option in getattr(kind, "model_fields", {}))
    yield from (f"data.train.{option}" for option in SourceConfig.model_fields)


def _seen_from(key: str, where: str) -> str:
    """The option's bare name where it belongs to the section at `where`."""
    holder, _, name = key.rpartition(".")
    is_source = holder == "data.train" and where.startswith(("data.train", "data.validation", "data.test"))
    return name if holder == where or is_source else key


def _foreign(word: str, value: Any, where: str) -> str:
    """The cure for another tool's name; empty where no tool is known to use it."""
    if isinstance(value, dict | tuple) and word in SECTIONS and not _is_source(value):
        return f"did you mean {SECTIONS[word]}?"
    if word in SOURCES:
        return _of_rows(SOURCES[word], value)
    if word in FRACTIONS:
        return _of_fraction(value, is_percent="percent" in word)
    if word in SAME:
        return f"did you mean {_seen_from(SAME[word], where)}?"
    if word in INSTEAD:
        cures = INSTEAD[word]
        cure = cures if isinstance(cures, str) else cures.get(word_of(value), cures[""])
        return cure.replace("{value}", flow(value))
    return f"remove it: {NEEDLESS[word]}" if word in NEEDLESS else ""


def word_of(value: Any) -> str:
    """A value as the tables of foreign words have it."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value).strip().lower()


def _is_source(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return any(isinstance(part, str) or (isinstance(part, dict) and "path" in part) for part in parts)


def _of_rows(key: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return f"write {key}: {flow(guessed_source(value))}"
    if isinstance(value, tuple) and value and all(isinstance(part, str) and part for part in value):
        return f"write {key}: {flow(tuple(guessed_source(part) for part in value))}"
    return f"did you mean {key}?"


def _of_fraction(value: Any, *, is_percent: bool) -> str:
    if not value:
        return "remove it: no row is held out unless data.validation asks"
    share = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        share = value / 100 if is_percent and value < 100 else value
    is_share = isinstance(share, float) and 0 < share < 1
    told = "" if is_share else " (a share of the rows, not their number)"
    return f"write data.validation: {flow({'fraction': share if is_share else _FRACTION})}{told}"


def _nested(name: str, value: Any) -> str:
    section, _, option = name.partition(".")
    return f"{section}: {flow({option: value})}"
