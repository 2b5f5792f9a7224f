"""Where the result of an evaluation lies: a quick look never takes the place of a fuller result."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT, PREDICTIONS = "result.json", "predictions.jsonl"
TRAINING = "marks.json"
"""What a training that answers rows writes of them, beside their predictions."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much an evaluation measures: rows, measures of answers, and how these are generated where there are any."""

    rows: int
    measures: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    num_beams: int | None = None

    @property
    def name(self) -> str:
        """A folder's name, another one for each extent."""
        answers = [*self.measures, f"tokens-{self.max_new_tokens}", f"beams-{self.num_beams}"]
        return "-".join([f"rows-{self.rows}", *(answers if self.measures else ["loss"])])

    def covers(self, other: "Extent") -> bool:
        """Whether nothing of `other` is lost where this takes its place."""
        if self.rows < other.rows or not set(self.measures) >= set(other.measures):
            return False
        if not other.measures or other.max_new_tokens is None:
            return True
        assert self.max_new_tokens is not None, "answers have a longest length"
        return self.max_new_tokens >= other.max_new_tokens and self.num_beams == other.num_beams


def place_of(extent: Extent, folder: Path, *, trained: Extent) -> tuple[Path, Path | None]:
    """The folder for a result: `folder`, or one inside it where a fuller result lies there, which is named too.

    `trained` is the extent of the answers that the training itself writes into that folder.
    """
    there = _extent_of(folder, trained)
    return (folder, None) if there is None or extent.covers(there) else (folder / extent.name, folder)


def _extent_of(folder: Path, trained: Extent) -> Extent | None:
    """What was measured in a folder; None where nothing was, or nothing that can be read."""
    found = _object(folder / RESULT)
    if found is None:
        answered = _object(folder / TRAINING) if (folder / PREDICTIONS).is_file() else None
        return trained if answered is not None else None
    tuned = found.get("tuned", {})
    measures = [name for name in ("exact_match", "rouge") if name in tuned or name in found]
    return Extent(found.get("rows", 0), tuple(measures), found.get("max_new_tokens"), found.get("num_beams"))


def _object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
