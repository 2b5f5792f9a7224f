"""Where the result of an evaluation lies: what is quicker, or of other rows, takes no fuller result's place."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.config.data import SourceConfig

RESULT, PREDICTIONS = "result.json", "predictions.jsonl"
SOURCE, DIGEST = "source", "rows_sha256"
"""Keys of a result that say of which rows it is: where they came from, as the recipe names it, and their digest."""
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result is to lie, and what has to make room for it."""

    folder: Path
    fuller: Path | None = None
    """The folder of a fuller result of the same rows, which is left alone."""
    aside: Path | None = None
    """Where the result in `folder` is put, because it is not known to be of the same rows."""


def place_of(extent: Extent, folder: Path, *, trained: Extent, rows: str) -> Place:
    """The place for a result: `folder`, or one inside it where a fuller result of the same rows lies there.

    `rows` is the digest of the rows that are measured, `trained` the extent of the answers that the training itself
    writes into that folder. A result of other rows, or one that does not say of which rows it is, is put aside.
    """
    there = _extent_of(folder, trained) if _is_of(folder, rows) else None
    if there is not None and not extent.covers(there):
        inside = folder / extent.name
        return Place(inside, folder, _aside(inside, rows))
    return Place(folder, None, _aside(folder, rows))


def digest_of_training(data: str, on: str) -> str:
    """The digest of the rows that a run trains or validates on, by what tells its data from any others."""
    return hashlib.sha256(f"{on} {data}".encode()).hexdigest()


def named(sources: Sequence[SourceConfig]) -> list[dict[str, str]]:
    """Sources as a result names them: as the recipe does."""
    keys = {"path", "subset", "split", "revision"}
    return [source.model_dump(include=keys, exclude_none=True) for source in sources]


def put_aside(place: Place) -> None:
    """Move the result that has to make room, its predictions first, so that what lies together belongs together."""
    if place.aside is None:
        return
    place.aside.mkdir(parents=True, exist_ok=True)
    for name in (PREDICTIONS, RESULT):
        (place.aside / name).unlink(missing_ok=True)
        if (place.folder / name).is_file():
            (place.folder / name).rename(place.aside / name)


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of an evaluation in a folder; None where none lies there, or none that can be understood."""
    found = _object(folder / RESULT)
    if found is None or not isinstance(found.get("rows"), int):
        return None
    tables = [found.get("base", {}), found.get("tuned", {}), rouge := found.get("rouge", {})]
    if not all(isinstance(table, dict) for table in tables):
        return None
    return found if all(isinstance(table, dict) for table in rouge.values()) else None


def _is_of(folder: Path, rows: str) -> bool:
    """Whether a folder's result is of these rows. What the training wrote there, without a result, always is."""
    found = read_result(folder)
    return found is None or found.get(DIGEST) == rows


def _aside(folder: Path, rows: str) -> Path | None:
    """Where the result in a folder is put; None where there is none, or where it is of these rows."""
    found = read_result(folder)
    if found is None or _is_of(folder, rows):
        return None
    digest = found.get(DIGEST)
    known = digest[:12] if isinstance(digest, str) and digest.isalnum() else "not-noted"
    return folder / f"other-rows-{known}-{_measured(found).name}"


def _extent_of(folder: Path, trained: Extent) -> Extent | None:
    """What was measured in a folder; None where nothing was, or nothing that can be read."""
    found = read_result(folder)
    if found is not None:
        return _measured(found)
    answered = _object(folder / TRAINING) if (folder / PREDICTIONS).is_file() else None
    return trained if answered is not None else None


def _measured(found: dict[str, Any]) -> Extent:
    """How much a result measures."""
    tuned = found.get("tuned", {})
    measures = [name for name in ("exact_match", "rouge") if name in tuned or name in found]
    lengths = [value if isinstance(value := found.get(key), int) else None for key in ("max_new_tokens", "num_beams")]
    return Extent(found["rows"], tuple(measures), *lengths)


def _object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
