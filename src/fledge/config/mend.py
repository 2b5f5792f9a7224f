"""What to write instead of a value that an option does not take: a cure that, written literally, gets further."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from fledge.config.data import SourceConfig
from fledge.config.document import Key, plain_scalar
from fledge.config.dump import flow
from fledge.config.forms import SOURCE_KEYS, forms, item_form, one_of, values_in, words_of
from fledge.config.nearest import nearest_name
from fledge.config.recipe import Recipe
from fledge.config.sources import guessed_source
from fledge.config.valued import is_number, word_of
from fledge.config.words import WORDS

_LONGEST_WHOLE = 1e15
"""Floats below it are written as whole numbers without surprise."""
_BOOLS = {
    **dict.fromkeys("yes on y 1 t enabled".split(), "true"),
    **dict.fromkeys("no off n 0 f none null disabled".split(), "false"),
}
_NULLS = frozenset({"none", "nil", "no", "off", "disabled", "false", "n/a", "nan", "unlimited", "", "-1", "0", "0.0"})
_PERCENT = frozenset({"data.validation.fraction", "lora.lora_dropout"})
"""Shares that people write in percent."""
_MOST_SHOWN = 60
_FORMATS = "another format is alpaca, chat, completion or text: what a row holds"


@dataclass(frozen=True, slots=True)
class Wrong:
    """A value that its option does not take."""

    value: Any
    key: Key
    section: type[BaseModel] | None
    written: str | None = None
    """What stands in the file for a value that is not text."""
    train: Any = None
    """The value of data.train, whose format is that of other sources, most likely."""

    @property
    def name(self) -> str:
        return str(self.key[-1])

    @property
    def option(self) -> str:
        """The key in dots, every source of rows taken for the first."""
        parts = [str(part) for part in self.key if not isinstance(part, int)]
        if tuple(parts[:2]) in SOURCE_KEYS and len(parts) == 3 and parts[2] != "fraction":
            parts[1] = "train"
        return ".".join(parts)


def cure_for(wrong: Wrong) -> str:
    """The cure for a value of a wrong type or out of range; empty where what is expected says it all."""
    is_one = isinstance(wrong.value, tuple) and len(wrong.value) == 1 and not isinstance(wrong.value[0], dict)
    if is_one and not _takes_list(wrong):
        wrong = replace(wrong, value=wrong.value[0], written=None)
        if _fits(wrong):
            return f"write {flow(wrong.value)}"
    if wrong.section is Recipe:
        return _of_section(wrong)
    if wrong.option == "data.train.path":
        return _of_path(wrong)
    if wrong.key[:2] in SOURCE_KEYS and (len(wrong.key) == 2 or isinstance(wrong.key[-1], int)):
        return _of_source(wrong)
    return (
        _of_words(wrong)
        or _of_form(wrong)
        or _of_text(wrong)
        or _of_null(wrong)
        or _of_placeholder(wrong)
        or _of_inner(wrong)
    )


def _takes_list(wrong: Wrong) -> bool:
    is_rows = wrong.key[:2] in SOURCE_KEYS and len(wrong.key) < 3
    return is_rows or any(form.get("type") == "array" for form in forms(wrong.section, wrong.name))


def _fits(wrong: Wrong) -> bool:
    """Whether the value is one that the option takes by name, or text where it takes text."""
    found = forms(wrong.section, wrong.name)
    is_text = isinstance(wrong.value, str) and any(
        form.get("type") == "string" and not words_of(form) for form in found
    )
    return is_text or any(wrong.value in words_of(form) for form in found)


def _of_placeholder(wrong: Wrong) -> str:
    is_one = isinstance(wrong.value, str) and re.search(r"\$\{?\w|\{\{", wrong.value)
    return "write the value itself: a recipe fills nothing in" if is_one else ""


def _of_inner(wrong: Wrong) -> str:
    """The first value of a mapping that its option does not take there, by its own name."""
    form = next((form for form in forms(wrong.section, wrong.name) if "additionalProperties" in form), None)
    if form is None or not isinstance(wrong.value, dict):
        return ""
    inner = form["additionalProperties"]
    bad = next((name for name, value in wrong.value.items() if not _is_of(value, inner)), None)
    if bad is None:
        return ""
    shown = flow(wrong.value[bad])
    key = ".".join(str(part) for part in (*wrong.key, bad))
    return f"{key} is {shown if len(shown) <= _MOST_SHOWN else f'{shown[:_MOST_SHOWN]}...'}: write {values_in(inner)}"


def _is_of(value: Any, form: dict[str, Any]) -> bool:
    """Whether a value meets the JSON Schema of a mapping's values."""
    kinds = {part.get("type"): part for part in form.get("anyOf", [form])}
    if isinstance(value, tuple | list):
        items = kinds.get("array", {}).get("items")
        return items is not None and all(_is_of(item, items) for item in value)
    if is_number(value):
        return math.isfinite(value) and bool({"number", "integer"} & set(kinds))
    kind = {bool: "boolean", str: "string", type(None): "null"}.get(type(value))
    return kind in kinds and not (value == "" and kinds[kind].get("minLength"))


def _of_words(wrong: Wrong) -> str:
    """What other tools write for a value, and names that are spelt nearly right."""
    value, known = wrong.value, WORDS.get(wrong.option, {})
    if not isinstance(value, tuple | dict) and word_of(value) in known:
        return _written(wrong, known[word_of(value)])
    words = [flow(word) for form in forms(wrong.section, wrong.name) for word in words_of(form)]
    near = nearest_name(value, words) if isinstance(value, str) else None
    return f"did you mean {near}?" if near else ""


def _written(wrong: Wrong, word: str) -> str:
    """The cure that writes `word`, with the option's name before it where the word alone is an option's name too."""
    is_name = word.partition(" ")[0] in SourceConfig.model_fields
    return f"write {'.'.join(str(part) for part in wrong.key)}: {word}" if is_name else f"write {word}"


def _of_form(wrong: Wrong) -> str:
    """By the types that the option takes."""
    by_type = {form.get("type"): form for form in forms(wrong.section, wrong.name)}
    value, word = wrong.value, word_of(wrong.value)
    if "boolean" in by_type and word in _BOOLS:
        return f"write {_BOOLS[word]}"
    if "null" in by_type and (word in _NULLS or (is_number(value) and value <= 0)):
        return "write null"
    if isinstance(value, str) and value.strip().lower() in ("true", "false") and "boolean" in by_type:
        return f"write {value.strip().lower()}"
    if "array" in by_type:
        return _of_list(wrong, by_type["array"])
    if "integer" in by_type or "number" in by_type:
        return _of_number(wrong, is_whole="number" not in by_type)
    return ""


def _of_number(wrong: Wrong, *, is_whole: bool) -> str:
    value = wrong.value
    number = _number_in(value) if isinstance(value, str) else value
    if not is_number(number):
        return ""
    if wrong.option == "train.warmup_steps" and 0 < number < 1:
        return f"remove it, and write train.warmup_ratio: {flow(number)}"
    if wrong.option == "train.warmup_ratio" and number > 1:
        return f"remove it, and write train.warmup_steps: {int(number)}"
    if wrong.option == "data.validation.fraction" and number == 0:
        return "write data.validation: null"
    if wrong.option in _PERCENT and 1 < number < 100:
        return f"write {flow(number / 100)}"
    if not is_whole:
        return f"write {flow(number)}" if isinstance(value, str) else ""
    if not math.isfinite(number) or abs(number) >= _LONGEST_WHOLE:
        return ""
    is_new = isinstance(value, str) or number != int(number) or isinstance(value, float)
    return f"write {math.ceil(number)}" if is_new else ""


def _number_in(text: str) -> int | float | None:
    """The number that a text means: `'1e-4'`, `3,000`, `1_000`, `0,5`, `10%`."""
    plain = text.strip().strip("\"'\u201c\u201d\u2018\u2019,;").replace("_", "")
    is_percent = plain.endswith("%")
    plain = plain.removesuffix("%").strip()
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+", plain):
        plain = plain.replace(",", "")
    with_unit = re.fullmatch(r"([-+]?[\d.,]+(?:[eE][-+]?\d+)?)\s*[A-Za-z]{2,}", plain)
    plain = with_unit[1] if with_unit else plain
    value = plain_scalar(plain.replace(",", ".", 1).removesuffix("f"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value / 100 if is_percent else value


def _of_list(wrong: Wrong, form: dict[str, Any]) -> str:
    """A list out of text that means one, with each item mended."""
    value = wrong.value
    items = _items(value) if isinstance(value, str) else value
    if not isinstance(items, tuple):
        items = (items,) if items is not None and not isinstance(items, dict) else ()
    words = [flow(word) for word in words_of(item_form(form))]
    if isinstance(value, dict):
        items = tuple(item for item in value.values() if isinstance(item, str))
    is_text = item_form(form).get("type") == "string"
    items = tuple(_mended_item(item, words, is_text=is_text) for item in items)
    if "prefixItems" in form:
        default = tuple(wrong.section.model_fields[wrong.name].default) if wrong.section else ()
        numbers = tuple(item for item in items if is_number(item))[: len(default)]
        items = numbers + default[len(numbers) :]
    if words and any(item not in words for item in items):
        return f"write {one_of([f'[{word}]' for word in words])}"
    if isinstance(value, tuple) and items == value:
        return ""
    if not items:
        return ""
    return f"write {'' if isinstance(value, tuple) or is_number(value) else 'a list: '}{flow(items)}"


def _items(text: str) -> tuple[Any, ...]:
    bare = text.strip().strip("[](){}")
    parts = [part.strip().strip("\"'") for part in re.split(r"[,;]|\s+", bare)]
    return tuple(plain_scalar(part) for part in parts if part)


def _mended_item(item: Any, words: Sequence[str], *, is_text: bool) -> Any:
    if words and isinstance(item, str):
        return nearest_name(item, words) or item
    return flow(item) if is_text and is_number(item) else item


def _of_text(wrong: Wrong) -> str:
    """A hint for text that YAML takes for something else."""
    value = wrong.value
    if not any(form.get("type") == "string" and not words_of(form) for form in forms(wrong.section, wrong.name)):
        return ""
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], str):
        return f"write {flow(value[0])}"
    if value is None or isinstance(value, tuple) or value == "":
        return ""
    is_pair = isinstance(value, dict) and list(value.values()) == [None]
    text = f"{next(iter(value))}: " if is_pair else wrong.written
    if isinstance(value, dict) and not is_pair:
        return ""
    return f"put it in quotes: {json.dumps(text, ensure_ascii=False)}" if text else "put it in quotes"


def _of_null(wrong: Wrong) -> str:
    """A key with nothing behind it."""
    if (
        (wrong.value is not None and wrong.value != "")
        or wrong.section is None
        or wrong.name not in wrong.section.model_fields
    ):
        return ""
    field = wrong.section.model_fields[wrong.name]
    if field.is_required():
        return f"write a value behind it: {field.description}"
    default = field.get_default(call_default_factory=True)
    return f"remove it: the default is {flow(default) or 'nothing'}"


def _of_section(wrong: Wrong) -> str:
    """A section that is no mapping of options."""
    value, name = wrong.value, wrong.name
    if isinstance(value, tuple) and value and all(isinstance(part, dict) for part in value):
        merged = {key: item for part in value for key, item in part.items()}
        return f"write the options without a dash: {flow(merged)}"
    pairs = re.fullmatch(r"\s*(\w+)\s*[:=]\s*(\S+)\s*", value) if isinstance(value, str) else None
    if pairs:
        return f"write {flow({pairs[1]: plain_scalar(pairs[2])})}"
    if isinstance(value, str) and value:
        inner: dict[str, Any] = {"model": {"name_or_path": value}, "output": {"dir": value}}.get(name, {})
        inner = {"train": guessed_source(value)} if name == "data" else inner
        if inner:
            return f"write {flow(inner)}"
    if name == "lora" and is_number(value):
        return f"write {flow({'r': value})}"
    if Recipe.model_fields[name].is_required():
        options = {"model": "name_or_path: ...", "data": "train: {path: ..., format: ...}"}
        return f"write its options below it, at least {options[name]}"
    return "remove it, or write its options below it"


def _of_path(wrong: Wrong) -> str:
    value = wrong.value
    if isinstance(value, tuple) and value and all(isinstance(part, str) for part in value):
        holder = ".".join(str(part) for part in wrong.key[:-1])
        known = wrong.train.get("format") if isinstance(wrong.train, dict) else None
        sources = tuple({"path": part, "format": known} if known else guessed_source(part) for part in value)
        return f"write {holder}: {flow(sources)} ({_FORMATS})" if holder.count(".") == 1 else ""
    return _of_text(wrong)


def _of_source(wrong: Wrong) -> str:
    """A source of rows that is written as something else."""
    value, is_validation = wrong.value, wrong.key[:2] == ("data", "validation") and len(wrong.key) == 2
    number = _number_in(value) if isinstance(value, str) else value
    if is_validation and value is True:
        return "write {fraction: 0.05}"
    if is_validation and is_number(number):
        return _of_held_out(number)
    if isinstance(value, str) and value.strip():
        if is_validation and value.lower() in ("auto", "yes", "on"):
            return "write {fraction: 0.05}"
        if value.lower() in _NULLS:
            return "write null" if wrong.name != "train" else ""
        known = wrong.train.get("format") if isinstance(wrong.train, dict) and wrong.key[1] != "train" else None
        source = {"path": value, "format": known} if known else guessed_source(value)
        return f"write {flow(source)} ({_FORMATS})"
    if value is False and wrong.name != "train":
        return "write null"
    return ""


def _of_held_out(number: float) -> str:
    if number <= 0:
        return "write null"
    share = number if number < 1 else number / 100 if number < 100 else 0.05
    return f"write {flow({'fraction': float(share)})}"
