"""Hub data sets as rows."""

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import datasets

from fledge.config.data import SourceConfig
from fledge.config.quoted import cure_of, said
from fledge.data.readers.arrow import BATCH_ROWS, numbered
from fledge.data.readers.values import records_of
from fledge.data.rows import BrokenRow, RawRow, Refusal
from fledge.errors import DataError
from fledge.network import go_offline_unless_reached

_CONFIGURATIONS = re.compile(r"[Aa]vailable(?: configs)?: \[([^\]]*)\]")


def load_hub(source: SourceConfig) -> Any:
    """The split of a hub data set that a source names, as datasets holds it (on disk, not in memory).

    Raises DataError where it cannot be had: no such id, no such split, subset or revision, no network.
    """
    asked = {"name": source.subset, "revision": source.revision}
    reason = go_offline_unless_reached()
    if reason is not None:
        datasets.config.HF_HUB_OFFLINE = True  # this library keeps a copy of the hub library's own
    try:
        named = {name: value for name, value in asked.items() if value is not None}
        return datasets.load_dataset(source.path, split=source.split, **named)
    except Exception as error:  # datasets lets through what its many back ends raise; nothing is swallowed here
        where = f"{source.path} (split {source.split})"
        logging.getLogger(__name__).debug("load_dataset failed", exc_info=True)
        what = f"the data set cannot be loaded: {type(error).__name__}: {said(error)}"
        what += "" if reason is None else f" (the hub is out of reach: {reason})"
        raise DataError(what, where=where, cure=_cure(source, error)) from error


def fingerprint(rows: Any) -> str:
    """What tells one version of a hub data set from another."""
    return str(rows._fingerprint)


def read_hub(rows: Any, *, note: Callable[[str], None]) -> Iterator[RawRow | BrokenRow]:
    """Rows of a loaded hub data set; images and sounds stay the bytes they are."""
    return numbered(_records(rows, note))


def _records(rows: Any, note: Callable[[str], None]) -> Iterator[dict[str, Any] | Refusal]:
    if isinstance(rows, datasets.Dataset):
        for table in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
            yield from records_of(table, note=note)
    else:
        yield from (dict(record) for record in rows)


def _cure(source: SourceConfig, error: Exception) -> str:
    names = _CONFIGURATIONS.search(str(error))
    if names is not None and isinstance(error, ValueError):
        return f"set the source's subset to one of these: {names[1][:1000]}"
    if source.revision is not None and "revision" in str(error).lower():
        return "set the source's revision to a branch, tag or commit of this data set"
    if "split" in str(error).lower() and isinstance(error, ValueError):
        return "set the source's split to one of those"
    taken = (
        f"{source.path!r} is taken for a hub id, for no such local file exists; check it, and that the hub is in reach"
    )
    known = cure_of(error)
    return taken if not known or "model." in known else f"{known} ({source.path!r} is taken for a hub id)"
