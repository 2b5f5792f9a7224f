"""The character between the values of a table, found in its first lines."""

import contextlib
import csv
from collections.abc import Sequence

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SAMPLE_LINES = 50


def find_separator(lines: Sequence[str], *, own: str, is_cut: bool) -> str:
    """Comma, semicolon or tab: the one by which most lines have as many values as the header, and that more than one.

    `own` is what the file's name stands for; it is taken where no other fits better. `is_cut` says that the last record
    may go on after these lines.
    """
    fits = {mark: _fit(lines, mark, is_cut=is_cut) for mark in (own, *SEPARATORS)}
    best = max(fits, key=lambda mark: fits[mark])
    return best if fits[best] > fits[own] else own


def _fit(lines: Sequence[str], mark: str, *, is_cut: bool) -> float:
    """The share of records with as many values as the header; -1 where the header is one value."""
    records: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # what was read before counts
        records.extend(record for record in csv.reader(lines, delimiter=mark) if record)
    if not records or len(records[0]) < 2:
        return -1.0
    rows = records[1 : -1 if is_cut else None]
    return sum(len(row) == len(records[0]) for row in rows) / len(rows) if rows else 1.0
