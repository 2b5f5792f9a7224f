"""A source opened: its rows, where each lies, and what tells its content from another."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fledge.config.columns import delimiter_of
from fledge.config.data import SourceConfig
from fledge.data.readers.arrow import read_arrow, read_parquet
from fledge.data.readers.find import SourceFile, find_files, is_local
from fledge.data.readers.hub import fingerprint, load_hub, read_hub
from fledge.data.readers.lines import EmptyFile, opened, read_whole
from fledge.data.readers.objects import read_objects
from fledge.data.readers.sheet import read_sheet
from fledge.data.readers.table import read_csv
from fledge.data.rows import TEXT_COLUMN, BrokenRow, RawRow, Refusal
from fledge.errors import DataError

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenSource:
    """One source of the recipe: either files or a loaded hub data set."""

    config: SourceConfig
    files: tuple[SourceFile, ...] = ()
    hub: Any = None
    stamps: tuple[tuple[int, int], ...] = ()
    """Size and modification time of each file when it was opened."""
    skipped: tuple[tuple[Path, str], ...] = ()
    """Files among these that are not read, and why."""
    noted: list[tuple[str, str]] = field(default_factory=list)
    """What was found out about files while they were read: the file's name, and the words."""

    @property
    def name(self) -> str:
        """The source as the ledger names it."""
        return self.config.path

    def part_names(self) -> list[tuple[str, str]]:
        """How each part is told to people: its name, and what stands between the name and a row's number."""
        if self.hub is not None:
            return [(self.config.path, ", row ")]
        return [
            (file.name, "" if file.kind == "txt" else ":" if file.counts_lines else ", row ") for file in self.files
        ]

    def where(self, part: int, number: int) -> str:
        """A row's place as the ledger tells it, under the part's short name."""
        name, between = self.part_names()[part]
        return f"{name}{between}{number}" if between else name

    def full_where(self, part: int, number: int | None) -> str:
        """A row's place (a part's, where number is None) as an error tells it, under the file's full path."""
        if self.hub is not None:
            return self.config.path if number is None else self.where(part, number)
        path = str(self.files[part].path)
        between = self.part_names()[part][1]
        return f"{path}{between}{number}" if between and number is not None else path

    def content_digests(self) -> list[str]:
        """A digest of each part's content."""
        if self.hub is not None:
            return [fingerprint(self.hub)]
        return [_digest(file) for file in self.files]

    def note(self, part: int, words: str) -> None:
        """Remember what a person should know of a part; the same words once."""
        known = (self.config.path if self.hub is not None else self.files[part].name, words)
        if known not in self.noted:
            self.noted.append(known)

    def check_unchanged(self) -> None:
        """Raise DataError where a file was written to since it was opened."""
        for file, stamp in zip(self.files, self.stamps, strict=True):
            if _stamp(file) != stamp:
                raise DataError("the file changed while it was read", where=str(file.path), cure="run again")


def open_source(config: SourceConfig) -> OpenSource:
    """Find the files of a source, or load its hub data set. Raises DataError where there is nothing to read."""
    if not is_local(config.path):
        if Path(config.path).exists():
            what = "a file or folder of this name lies in the working directory and would be taken for the data set"
            cure = "give its absolute path (in a recipe: ./ and the name), or start from another folder"
            raise DataError(what, where=config.path, cure=cure)
        return OpenSource(config, hub=load_hub(config))
    found = find_files(config)
    stamps = tuple(_stamp(file) for file in found.files)
    if config.delimiter is not None and not any(file.kind in ("csv", "tsv") for file in found.files):
        what = "delimiter has no effect: no file is a csv or tsv"
        raise DataError(what, where=config.path, cure="remove delimiter")
    noted = [(config.path, found.note)] if found.note else []
    return OpenSource(config, found.files, stamps=stamps, skipped=found.skipped, noted=noted)


def read_part(source: OpenSource, part: int) -> tuple[Iterator[RawRow | BrokenRow], int | None]:
    """The rows of one file (or of the hub data set), and their number where it is known beforehand.

    An empty file has no rows. Raises DataError where it is the only one.
    """
    if len(source.files) < 2:
        return _read(source, part)
    try:
        rows, total = _read(source, part)
    except EmptyFile:
        return iter(()), 0
    return _unless_empty(rows), total


def _unless_empty(rows: Iterator[RawRow | BrokenRow]) -> Iterator[RawRow | BrokenRow]:
    with suppress(EmptyFile):
        yield from rows


def _read(source: OpenSource, part: int) -> tuple[Iterator[RawRow | BrokenRow], int | None]:
    note = partial(source.note, part)
    if source.hub is not None:
        return read_hub(source.hub, note=note), len(source.hub)
    file = source.files[part]
    if file.kind in ("json", "jsonl"):
        return read_objects(file, note=note)
    if file.kind in ("csv", "tsv"):
        return read_csv(file, delimiter=delimiter_of(source.config), note=note), None
    if file.kind == "xlsx":
        return read_sheet(file, note=note), None
    if file.kind == "txt":
        return _read_text(file), 1
    return {"parquet": read_parquet, "arrow": read_arrow}[file.kind](file, note=note), None


def _read_text(file: SourceFile) -> Iterator[RawRow | BrokenRow]:
    with opened(file) as stream:
        try:
            text = read_whole(stream, file)
        except DataError as error:
            yield BrokenRow(1, Refusal("invalid", error.problems[0].what, error.problems[0].cure))
        else:
            yield RawRow(1, {TEXT_COLUMN: text})


def _digest(file: SourceFile) -> str:
    digest = hashlib.sha256()
    try:
        with file.path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(file.path)) from error
    return digest.hexdigest()


def _stamp(file: SourceFile) -> tuple[int, int]:
    try:
        status = file.path.stat()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(file.path)) from error
    return status.st_size, status.st_mtime_ns
