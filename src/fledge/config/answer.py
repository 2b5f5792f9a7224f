"""What to write instead of a name that a recipe does not know: the nearest option, or Fledge's own name for it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from fledge.config.data import SourceConfig, ValidationFraction
from fledge.config.dump import flow
from fledge.config.foreign import FRACTIONS, IN_SECTION, INSTEAD, NEEDLESS, SAME, SECTIONS, SOURCES
from fledge.config.forms import fits
from fledge.config.nearest import folded, typo_of
from fledge.config.recipe import Recipe
from fledge.config.sources import guessed_source, looks_like_data
from fledge.config.valued import VALUED, VALUED_IN_LORA, is_number, word_of
from fledge.config.words import WORDS

_MEANT = "did you mean "
_FRACTION = 0.05
"""What to hold out where another tool's value is no share."""
_LONG_NAME = 8
"""Letters from which on another tool's name is known with a slip in it."""


def answer_unknown(name: str, value: Any, *, section: type[BaseModel] | None, where: str) -> str:
    """The cure for `name: value`, which stands in `section` (at the key `where`) and is none of its options.

    In this order: the same name spelt otherwise; the same name in another section; another tool's name; the name that
    it is but for a slip or two, where that takes the value; all names.
    """
    own = list(section.model_fields) if section else []
    word = folded(name)
    if word in own:
        return f"did you mean {word}?"
    return (
        _of_section(name, value, section=section, where=where)
        or _of_option_elsewhere(name, value, section=section, where=where)
        or _foreign(word, value, where)
        or _typo(name, value, section=section, where=where)
        or f"there is: {', '.join(own)}"
    )


def _of_section(name: str, value: Any, *, section: type[BaseModel] | None, where: str) -> str:
    """The cure for a name that means something in this section alone."""
    word = folded(name)
    local = IN_SECTION.get("data.train" if section is SourceConfig else where, {}).get(word)
    if local and section is not None and (isinstance(value, str) or fits(value, section, name=local)):
        return f"did you mean {local}?"
    if where == "lora" and word in VALUED_IN_LORA:
        return VALUED_IN_LORA[word](value)
    if section is SourceConfig and looks_like_data(name):
        source = guessed_source(name) | ({"format": value} if isinstance(value, str) else {})
        return f"write {where}: {flow(source)}" if where.count(".") == 1 else f"write path: {flow(name)}"
    if section is ValidationFraction and word in SourceConfig.model_fields:
        return "remove it, or remove fraction: the fraction is taken of the rows of data.train"
    return ""


def _of_option_elsewhere(name: str, value: Any, *, section: type[BaseModel] | None, where: str) -> str:
    """The cure for an option that stands in the wrong section, or whose section is written before it."""
    elsewhere = next((key for key in _all_keys() if key.rpartition(".")[2] == folded(name)), None)
    if elsewhere == "data.test" and isinstance(value, bool):
        return "remove it: `fledge evaluate RUN --on test` measures on the rows of data.test"
    if elsewhere and section is not SourceConfig:
        return f"did you mean {_seen_from(elsewhere, where)}?"
    if (dotted := re.sub(r"\s*[/:>]+\s*", ".", name)) != name and dotted in _all_keys():
        return f"did you mean {dotted}?"
    if "." in name and name in _all_keys():
        return f"a dot does not open a section in a file: write {_nested(name, value)}"
    return ""


def foreign_answer(name: str, value: Any) -> str:
    """What to write in a recipe for `name: value` of another tool's file, with the value; why nothing, where a recipe
    has no option for it; empty where no tool is known to call anything so.
    """
    word = folded(name)
    own = next((key for key in _all_keys() if key.rpartition(".")[2] == word), None)
    cure = f"{_MEANT}{own}?" if own else _foreign(word, value, "")
    if not cure.startswith(_MEANT):
        return cure
    key = cure[len(_MEANT) : -1]
    return f"write {key}: {_in_own_words(key, value)}"


def is_section(name: str) -> bool:
    """Whether a mapping of this name is a section of options, a recipe's or another tool's."""
    return folded(name) in {*Recipe.model_fields, *SECTIONS}


def _in_own_words(key: str, value: Any) -> str:
    """Another tool's value as a recipe has it, as far as that is known."""
    if isinstance(value, tuple | dict):
        return flow(_renamed(value) if key in SOURCES.values() else value)
    return WORDS.get(key, {}).get(word_of(value)) or flow(value)


def _renamed(value: Any) -> Any:
    """A source of rows, or a list of them, under the recipe's names; those that are not known stay."""
    if isinstance(value, tuple):
        return tuple(_renamed(item) for item in value)
    if not isinstance(value, dict):
        return guessed_source(value) if isinstance(value, str) else value
    source: dict[str, Any] = {}
    for name, item in value.items():
        word = folded(str(name))
        holder, _, option = SAME.get(word, "").rpartition(".")
        near = IN_SECTION["data.train"].get(word, option if holder == "data.train" else name)
        own = word if word in SourceConfig.model_fields else near
        words = WORDS.get(f"data.train.{own}", {})
        meant = words.get(word_of(item), item) if not isinstance(item, tuple | dict) else item
        source[name if own in source else own] = meant
    return source


def _typo(name: str, value: Any, *, section: type[BaseModel] | None, where: str) -> str:
    """The cure for a name that is but for a slip or two an option that takes the value, or another tool's name."""
    own = [option for option in section.model_fields if fits(value, section, name=option)] if section else []
    if near := typo_of(name, own):
        return f"did you mean {near}?"
    if section is SourceConfig:
        return ""
    others = {key.rpartition(".")[2]: key for key in _all_keys(with_rows=False) if _takes(key, value)}
    if nearly := typo_of(name, others):
        return f"did you mean {others[nearly]}?"
    tables: tuple[Iterable[str], ...] = (SAME, SOURCES, FRACTIONS, VALUED, INSTEAD, NEEDLESS)
    foreign = typo_of(name, [known for table in tables for known in table if len(known) >= _LONG_NAME])
    return _foreign(foreign, value, where) if foreign else ""


def _takes(key: str, value: Any) -> bool:
    section, _, option = key.partition(".")
    kind = Recipe.model_fields[section].annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel) and fits(value, kind, name=option)


def _all_keys(*, with_rows: bool = True) -> Iterator[str]:
    """Every option, dotted; those of a source under data.train, where they are wanted."""
    sections = {name: field.annotation for name, field in Recipe.model_fields.items()}
    for name, kind in sections.items():
        yield from (f"{name}.{option}" for option in getattr(kind, "model_fields", {}))
    if with_rows:
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
        return _of_rows(word, value)
    if word in FRACTIONS:
        return _of_fraction(value, is_percent="percent" in word)
    if word in SAME:
        return f"did you mean {_seen_from(SAME[word], where)}?"
    if word in VALUED:
        return VALUED[word](value)
    if word in INSTEAD:
        cures = INSTEAD[word]
        cure = cures if isinstance(cures, str) else cures.get(word_of(value), cures[""])
        return cure.replace("{value}", flow(value))
    return f"remove it: {NEEDLESS[word]}" if word in NEEDLESS else ""


def _is_source(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return any(isinstance(part, str) or (isinstance(part, dict) and "path" in part) for part in parts)


def _of_rows(word: str, value: Any) -> str:
    key, kind = SOURCES[word], {"format": "text"} if word == "pretraining_dataset" else {}
    if key == "data.validation" and (is_number(value) or isinstance(value, bool)):
        return _of_fraction(value, is_percent=False)
    if isinstance(value, str) and value:
        return f"write {key}: {flow(guessed_source(value) | kind)}"
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
