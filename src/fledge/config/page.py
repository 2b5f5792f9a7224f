"""The options page of the documents (docs/recipe.md), made from the sections' docstrings."""

import sys
from collections.abc import Iterator

from pydantic import BaseModel

from fledge.config.data import SourceConfig, ValidationFraction
from fledge.config.dump import scalar
from fledge.config.forms import expected
from fledge.config.recipe import Recipe
from fledge.config.template import section_of

_HEAD = """\
# The recipe

A recipe is a YAML file (YAML 1.2: `1e-4` is a number, `yes` is text). Every key has an effect: an unknown key, a wrong
type or a value out of range is told with its line, all of them at once, before anything is loaded.
`key.path=value` on the command line overrides (`train.learning_rate=1e-4`, `data.train.0.weight=2`).
Relative paths start from the recipe's folder.

A source's `path`, and `model.name_or_path`, is local where it starts with `/`, `~`, `./` or `../`, has a wildcard, ends
like a data file, or exists; anything else is a hub id, and naming one is asking for the network.

This page is made from the code (`python -m fledge.config.page`), and a test compares the two.
"""


def options_page() -> str:
    """The page as Markdown: a table for each section."""
    lines = [_HEAD]
    for name, field in Recipe.model_fields.items():
        lines += [f"## {name}", "", f"{field.description}", "", *_table(section_of(field)), ""]
        if name == "data":
            lines += ["### A source", "", f"{SourceConfig.__doc__}", "", *_table(SourceConfig), ""]
            lines += ["### A fraction", "", f"{ValidationFraction.__doc__}", "", *_table(ValidationFraction), ""]
    return "\n".join(lines)


def _table(section: type[BaseModel]) -> Iterator[str]:
    yield "| option | default | takes | what it does |"
    yield "| --- | --- | --- | --- |"
    for name, field in section.model_fields.items():
        default = (
            "must be given" if field.is_required() else f"`{scalar(field.get_default(call_default_factory=True))}`"
        )
        takes = expected(section, name).replace("|", "\\|")
        yield f"| `{name}` | {default} | {takes} | {' '.join((field.description or '').split()).replace('|', '/')} |"


if __name__ == "__main__":
    sys.stdout.write(options_page())
