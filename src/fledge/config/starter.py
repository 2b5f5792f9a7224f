"""The short recipe that `fledge init --data` writes for a file: what the file needs, and settings for its size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fledge.config.dump import scalar

VALIDATION = 0.05
"""Share of the rows that is held out."""
_SMALL, _MIDDLE = 1_000, 10_000


@dataclass(frozen=True, slots=True)
class Starter:
    """What a short recipe is made of."""

    model: str
    source: Mapping[str, Any]
    """The options of data.train."""
    num_rows: int
    max_length: int
    remarks: tuple[str, ...]
    """What was found out about the file, a line of the recipe's head each."""
    data: Mapping[str, Any]
    """Further options of the data section."""


def starter_recipe(starter: Starter) -> str:
    """A recipe as YAML that trains as it is."""
    lines = ["# Written by `fledge init`. Each option and its default: `fledge init FILE` without --data."]
    lines += [f"# {_on_one_line(remark)}" for remark in starter.remarks]
    lines += ["model:", f"  name_or_path: {scalar(starter.model)}", "data:", "  train:"]
    lines += [f"    {name}: {scalar(value)}" for name, value in starter.source.items()]
    if starter.num_rows > 1:
        lines += [f"  validation: {{fraction: {VALIDATION}}}  # held out: `fledge evaluate` measures on these rows"]
    lines += [f"  max_length: {starter.max_length}"]
    lines += [f"  {name}: {scalar(value)}" for name, value in starter.data.items()]
    settings = _settings(starter.num_rows)
    if settings:
        lines += ["train:", *(f"  {name}: {scalar(value)}" for name, value in settings.items())]
    return "\n".join(lines) + "\n"


def _settings(num_rows: int) -> dict[str, Any]:
    """Few rows are seen more often, in smaller steps; from 10,000 rows on the defaults are right."""
    if num_rows < _SMALL:
        return {"num_epochs": 10, "global_batch_size": 8, "learning_rate": 5e-4}
    if num_rows < _MIDDLE:
        return {"num_epochs": 3, "global_batch_size": 16}
    return {}


def _on_one_line(text: str) -> str:
    """Text that cannot leave the comment that it is put into."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
