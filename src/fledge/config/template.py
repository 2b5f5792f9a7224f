"""The commented recipe that `fledge init` writes, made from the sections' own docstrings so that it cannot drift."""

import textwrap
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fledge.config.data import SourceConfig
from fledge.config.dump import scalar
from fledge.config.recipe import Recipe

WIDTH = 110

_HEAD = """\
# A Fledge recipe. Only what is not commented out is needed; the rest shows each option with its default.
# Train with it: fledge train recipe.yaml        Set an option from outside: fledge train recipe.yaml train.num_epochs=1
# `fledge schema` prints the JSON Schema that editors complete and check with.
"""
# The options that a recipe must have, with values to start from.
_MODEL = "bigscience/bloom-1b7"
_VALIDATION = "{fraction: 0.05}"
"""Without rows that are held out `fledge evaluate` has nothing to measure on."""
_SOURCE = {"path": "tatsu-lab/alpaca", "format": "alpaca"}


def commented_recipe(model: str | None = None) -> str:
    """A recipe that loads as it is, for the base `model`: what must be given, a validation, and every other option
    commented out with its default.
    """
    lines = [_HEAD]
    for name, field in Recipe.model_fields.items():
        section = section_of(field)
        lines += [f"# {field.description}", f"{name}:" if _must_be_given(section) else f"# {name}:"]
        given = {("model", "name_or_path"): scalar(model or _MODEL), ("data", "validation"): _VALIDATION}
        for option, info in section.model_fields.items():
            lines += _option(name, option, info, given.get((name, option)))
        lines.append("")
    return "\n".join(lines)


def section_of(field: FieldInfo) -> type[BaseModel]:
    """The section that a field of the recipe holds."""
    kind = field.annotation
    assert isinstance(kind, type) and issubclass(kind, BaseModel), "every field of a recipe is a section"
    return kind


def _must_be_given(section: type[BaseModel]) -> bool:
    return any(field.is_required() for field in section.model_fields.values())


def _option(section: str, name: str, field: FieldInfo, given: str | None) -> Iterator[str]:
    yield from textwrap.wrap(field.description or "", WIDTH, initial_indent="  # ", subsequent_indent="  # ")
    if (section, name) == ("data", "train"):
        yield "  train:"
        yield from _source()
    elif given is not None:
        yield f"  {name}: {given}"
    else:
        yield f"  # {name}: {scalar(field.get_default(call_default_factory=True))}"


def _source() -> Iterator[str]:
    for name, field in SourceConfig.model_fields.items():
        yield from textwrap.wrap(field.description or "", WIDTH, initial_indent="    # ", subsequent_indent="    # ")
        yield (
            f"    {name}: {_SOURCE[name]}"
            if name in _SOURCE
            else f"    # {name}: {scalar(field.get_default(call_default_factory=True))}"
        )
