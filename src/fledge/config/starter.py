"""The short recipe that `fledge init --data` writes for a file: what the file needs, and settings for its size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fledge.config.dump import scalar

VALIDATION = 0.05
"""Share of the rows that is held out."""
_SMALL, _MIDDLE = 1_000, 10_000
_RATES = ((1024, 1e-3), (4096, 5e-4))
"""Learning rates for few rows, by the features of the base that are below; wider bases take the default."""


@dataclass(frozen=True, slots=True)
class Starter:
    """What a short recipe is made of."""

    model: str
    source: Mapping[str, Any]
    """The options of data.train."""
    num_rows: int
    width: int | None
    """Features of the base, where it says."""
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
    settings = _settings(starter.num_rows, starter.width)
    if settings:
        lines += ["train:", *(f"  {name}: {scalar(value)}" for name, value in settings.items())]
    return "\n".join(lines) + "\n"


def _settings(num_rows: int, width: int | None) -> dict[str, Any]:
    """Few rows are seen so often that they are learnt by heart; from 10,000 rows on the defaults are right."""
    if num_rows < _SMALL:
        rate = next((rate for below, rate in _RATES if width is not None and width < below), None)
        chosen = {} if rate is None else {"learning_rate": rate}
        return {"num_epochs": _epochs(num_rows), "global_batch_size": 8, **chosen}
    if num_rows < _MIDDLE:
        return {"num_epochs": 3, "global_batch_size": 16}
    return {}


def _epochs(num_rows: int) -> int:
    """20 epochs, as many more as make 250 steps, and at most 50; from 300 rows on as many as make 750 steps."""
    count = max(num_rows, 1)
    return max(min(6000 // count, 20), min(2000 // count, 50))


def _on_one_line(text: str) -> str:
    """Text that cannot leave the comment that it is put into."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
