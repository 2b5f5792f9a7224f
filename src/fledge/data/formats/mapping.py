"""From a row as people have it to a record with its format's own names; what no option reads is noted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fledge.config.columns import named_columns
from fledge.config.data import SourceConfig
from fledge.data.formats.empty import is_filled
from fledge.data.formats.named import Name, naming_of
from fledge.data.rows import Refusal, is_text_file
from fledge.data.unread import MORE, MOST_NAMES, absent_note, holds_something, unread_note

_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_LABELS = ("label", "kto_tag")
_BAD, _GOOD = (False, "false", "False", "FALSE"), (True, "true", "True", "TRUE")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A record that has its format's names, and what a person should know of the row."""

    record: dict[str, Any]
    notes: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    """Further right answers."""
    answer: str = ""
    """The one that the record has, where there are further ones."""


Map = Callable[[Mapping[str, Any]], Mapped | Refusal]


def mapping_of(source: SourceConfig, *, needs_prompt: bool) -> Map:
    """The function that gives the rows of `source` the names that its format's renderer reads.

    It refuses rows that lack a column, hold images or sounds, or are labelled as bad answers. `needs_prompt` gives a
    prompt template no text where its columns are all empty.
    """
    return partial(_mapped, naming_of(source, needs_prompt=needs_prompt), _Notes(source), source.format)


def _mapped(name: Name, notes: "_Notes", form: str, record: Mapping[str, Any]) -> Mapped | Refusal:
    named = name(record)
    if isinstance(named, Refusal):
        return named
    read = named.read
    for column in _MEDIA:
        if column in record and column not in read and is_filled(record[column]):
            cure = "remove the column where the text is complete without it"
            return Refusal("invalid", f"the row has something in {column!r}, and only text is trained", cure)
    numbers: tuple[str, ...] = ()
    for column in _LABELS:
        label = record.get(column)
        if form == "text" or column in read:
            continue
        if isinstance(label, bool | str):
            if label in _BAD:
                return Refusal("labelled_bad", f"column {column!r} marks the answer as a bad one")
            read = read | {column} if label in _GOOD else read
        elif isinstance(label, int | float) and label == label:  # a class, or 0 and 1 for bad and good
            numbers = (*numbers, f"column {column!r} holds a number and is not read: only false marks a bad answer")
    return Mapped(named.record, (*notes.of(record, read), *numbers), named.references, named.answer)


@dataclass(slots=True)
class _Notes:
    """The notes of columns that no option reads, and of those that the recipe names and a row lacks; made once each."""

    source: SourceConfig
    known: dict[str, str] = field(default_factory=dict)

    def of(self, record: Mapping[str, Any], read: frozenset[str]) -> tuple[str, ...]:
        unread = [self._note(name) for name, value in record.items() if name not in read and holds_something(value)]
        absent = [absent_note(column) for column in named_columns(self.source) if column not in record]
        return (*dict.fromkeys(unread), *absent) if not is_text_file(record) else ()

    def _note(self, name: str) -> str:
        if name not in self.known and len(self.known) < MOST_NAMES:
            self.known[name] = unread_note(name)
        return self.known.get(name, MORE)
