"""Parquet and Arrow files as rows, streamed."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from fledge.data.readers.find import SourceFile
from fledge.data.readers.lines import opened
from fledge.data.readers.values import records_of
from fledge.data.rows import BrokenRow, RawRow, Refusal
from fledge.errors import DataError

BATCH_ROWS = 1024
_UNREADABLE = (ValueError, OSError, TypeError, pyarrow.ArrowException)


def read_parquet(file: SourceFile, *, note: Callable[[str], None]) -> Iterator[RawRow | BrokenRow]:
    """Rows of a parquet file, streamed. Raises DataError where it cannot be read."""
    try:
        with opened(file) as stream:
            batches = pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=BATCH_ROWS)
            yield from _rows(batches, file, note=note)
    except _UNREADABLE as error:
        cure = "is it a parquet file, and whole?"
        raise DataError(f"cannot be read as parquet: {error}", where=str(file.path), cure=cure) from error


def read_arrow(file: SourceFile, *, note: Callable[[str], None]) -> Iterator[RawRow | BrokenRow]:
    """Rows of an Arrow file, as the datasets library saves them (a stream) or as a file with an index.

    Raises DataError where it cannot be read.
    """
    try:
        with opened(file) as stream:
            is_indexed = stream.read(6) == b"ARROW1"
            stream.seek(0)
            if is_indexed:
                reader = pyarrow.ipc.open_file(stream)
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
                yield from _rows(batches, file, note=note)
            else:
                yield from _rows(pyarrow.ipc.open_stream(stream), file, note=note)
    except _UNREADABLE as error:
        cure = "is it an Arrow file, and whole?"
        raise DataError(f"cannot be read as Arrow: {error}", where=str(file.path), cure=cure) from error


def numbered(records: Iterator[dict[str, Any] | Refusal]) -> Iterator[RawRow | BrokenRow]:
    """The records as rows that count from 1."""
    for number, record in enumerate(records, 1):
        yield BrokenRow(number, record) if isinstance(record, Refusal) else RawRow(number, record)


def _rows(batches: Any, file: SourceFile, *, note: Callable[[str], None]) -> Iterator[RawRow | BrokenRow]:
    return numbered(_records(batches, file, note))


def _records(batches: Any, file: SourceFile, note: Callable[[str], None]) -> Iterator[dict[str, Any] | Refusal]:
    for batch in batches:
        names = batch.schema.names
        twice = sorted({name for name in names if names.count(name) > 1})[:10] if len({*names}) < len(names) else []
        if twice:
            what = f"the file names a column twice: {', '.join(map(repr, twice))}"
            raise DataError(what, where=str(file.path), cure="give each column its own name")
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield from records_of(batch.slice(start, BATCH_ROWS), note=note)
