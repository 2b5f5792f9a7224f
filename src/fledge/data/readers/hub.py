"""Parquet files and hub data sets as rows."""

import logging
from collections.abc import Iterator
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet

from fledge.config.data import SourceConfig
from fledge.config.quoted import cure_of, said
from fledge.data.readers.find import SourceFile
from fledge.data.rows import RawRow
from fledge.errors import DataError

_BATCH_ROWS = 1024


def read_parquet(file: SourceFile) -> Iterator[RawRow]:
    """Rows of a parquet file, streamed. Raises DataError where it cannot be read."""
    try:
        with file.path.open("rb") as stream:
            batches = pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=_BATCH_ROWS)
            records = (record for batch in batches for record in batch.to_pylist())
            for number, record in enumerate(records, 1):
                yield RawRow(number, record)
    except (ValueError, OSError, TypeError, pyarrow.ArrowException) as error:
        cure = "is it a parquet file, and whole?"
        raise DataError(f"cannot be read as parquet: {error}", where=str(file.path), cure=cure) from error


def load_hub(source: SourceConfig) -> Any:
    """The split of a hub data set that a source names, as datasets holds it (on disk, not in memory).

    Raises DataError where it cannot be had: no such id, no such split, no network.
    """
    try:
        return datasets.load_dataset(source.path, split=source.split)
    except Exception as error:  # datasets lets through what its many back ends raise; nothing is swallowed here
        where = f"{source.path} (split {source.split})"
        logging.getLogger(__name__).debug("load_dataset failed", exc_info=True)
        what = f"the data set cannot be loaded: {type(error).__name__}: {said(error)}"
        raise DataError(what, where=where, cure=_cure(source, error)) from error


def fingerprint(rows: Any) -> str:
    """What tells one version of a hub data set from another."""
    return str(rows._fingerprint)


def read_hub(rows: Any) -> Iterator[RawRow]:
    """Rows of a loaded hub data set."""
    for number, record in enumerate(rows, 1):
        yield RawRow(number, dict(record))


def _cure(source: SourceConfig, error: Exception) -> str:
    if "split" in str(error).lower() and isinstance(error, ValueError):
        return "set the source's split to one of those"
    taken = (
        f"{source.path!r} is taken for a hub id, for no such local file exists; check it, and that the hub is in reach"
    )
    known = cure_of(error)
    return taken if not known or "model." in known else f"{known} ({source.path!r} is taken for a hub id)"
