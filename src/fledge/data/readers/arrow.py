"""Parquet and Arrow files as rows, streamed."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from fledge.data.readers.find import SourceFile
from fledge.data.readers.lines import opened
from fledge.data.rows import RawRow
from fledge.errors import DataError

BATCH_ROWS = 1024
_UNREADABLE = (ValueError, OSError, TypeError, pyarrow.ArrowException)


def read_parquet(file: SourceFile) -> Iterator[RawRow]:
    """Rows of a parquet file, streamed. Raises DataError where it cannot be read."""
    try:
        with opened(file) as stream:
            yield from _rows(pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=BATCH_ROWS))
    except _UNREADABLE as error:
        cure = "is it a parquet file, and whole?"
        raise DataError(f"cannot be read as parquet: {error}", where=str(file.path), cure=cure) from error


def read_arrow(file: SourceFile) -> Iterator[RawRow]:
    """Rows of an Arrow file, as the datasets library saves them (a stream) or as a file with an index."""
    try:
        with opened(file) as stream:
            is_indexed = stream.read(6) == b"ARROW1"
            stream.seek(0)
            if is_indexed:
                reader = pyarrow.ipc.open_file(stream)
                yield from _rows(reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                yield from _rows(pyarrow.ipc.open_stream(stream))
    except _UNREADABLE as error:
        cure = "is it an Arrow file, and whole?"
        raise DataError(f"cannot be read as Arrow: {error}", where=str(file.path), cure=cure) from error


def _rows(batches: Any) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            for record in records_of(batch.slice(start, BATCH_ROWS)):
                number += 1
                yield RawRow(number, record)


def records_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of a record batch or table; values of Arrow's JSON type are what the JSON says."""
    records: list[dict[str, Any]] = batch.to_pylist()
    packed = [field.name for field in batch.schema if _has_json(field.type)]
    for name in packed:
        kind = batch.schema.field(name).type
        for record in records:
            record[name] = _unpacked(record[name], kind)
    return records


def _has_json(kind: Any) -> bool:
    if isinstance(kind, pyarrow.JsonType):
        return True
    return any(_has_json(kind.field(place).type) for place in range(kind.num_fields))


def _unpacked(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, pyarrow.JsonType):
        return json.loads(value)
    if isinstance(value, list):
        return [_unpacked(item, kind.value_type) for item in value]
    if isinstance(value, Mapping):
        return {name: _unpacked(item, kind.field(name).type) for name, item in value.items()}
    return value
