"""Tokenised rows on disk, memory-mapped: flat arrays of ids and trained bits, and an index of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fledge.data.references import References, ReferenceWriter
from fledge.data.rows import Row, TokenRow
from fledge.data.sample import read_sample

INDEX = np.dtype(
    [
        ("offset", "<i8"),  # where the row's tokens begin in the flat arrays
        ("parent", "<i8"),  # which kept row of the sources it is, or is a piece of
        ("number", "<i8"),  # line or row in its file
        ("part", "<i4"),  # which file, counted over all sources
        ("source", "<i4"),
        ("piece", "<i4"),  # from 0; -1 where the row is whole
        ("length", "<i4"),
        ("supervised", "<i4"),
        ("prompt_stop", "<i4"),
        ("answer_start", "<i4"),
        ("answer_stop", "<i4"),
        ("is_lossy", "<i4"),  # 1 where the answer's ids are not its text
        ("asked_length", "<i4"),  # 0 where the prompt's ids are the row's own
        ("asked", "<i8"),  # where the prompt's own ids begin
    ]
)
FILES = ("tokens.bin", "trained.bin", "rows.bin", "asked.bin")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stored row comes from."""

    source: int
    part: int
    number: int
    parent: int
    piece: int


class StoreWriter:
    """Appends rows to the files of a store; memory is one batch."""

    def __init__(self, folder: Path) -> None:
        self._files = [(folder / name).open("wb") for name in FILES]
        self._references = ReferenceWriter(folder)
        self._offset = 0
        self._asked = 0
        self.num_parents = 0
        """Rows of the sources that were kept, however many pieces each became."""

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for file in self._files:
            file.close()
        self._references.close()

    def write(self, rows: Sequence[tuple[Origin, TokenRow]]) -> None:
        """Append rows."""
        tokens, trained, index, asked = self._files
        total = sum(len(row.ids) for _, row in rows)
        flat = np.fromiter(chain.from_iterable(row.ids for _, row in rows), dtype=np.int32, count=total)
        bits = np.zeros(total, dtype=np.uint8)
        entries = []
        position = 0
        for origin, row in rows:
            for start, stop in row.ranges:
                bits[position + start : position + stop] = 1
            place = (self._offset + position, origin.parent, origin.number, origin.part, origin.source, origin.piece)
            prompt_stop = row.num_source or row.answer[0]
            alone = row.asked or ()
            own = (row.is_lossy, len(alone), self._asked)
            entries.append((*place, len(row.ids), row.supervised_tokens, prompt_stop, *row.answer, *own))
            asked.write(np.array(alone, dtype=np.int32).tobytes())
            self._asked += len(alone)
            self._references.write(self._offset + position, row.references)
            position += len(row.ids)
        tokens.write(flat.tobytes())
        trained.write(bits.tobytes())
        index.write(np.array(entries, dtype=INDEX).tobytes())
        self._offset += total


class TokenStore:
    """The rows of a store, or some of them.

    `parts` is each file's name and what stands between it and a row's number.
    """

    def __init__(self, folder: Path, *, parts: Sequence[tuple[str, str]], num_sources: int) -> None:
        self.folder = folder
        self._parts = parts
        self._num_sources = num_sources
        self._tokens = np.memmap(folder / FILES[0], dtype=np.int32, mode="r")
        self._trained = np.memmap(folder / FILES[1], dtype=np.bool_, mode="r")
        self._references = References(folder)
        asked = folder / FILES[3]
        self._asked = np.memmap(asked, dtype=np.int32, mode="r") if asked.stat().st_size else np.zeros(0, np.int32)
        self._index: NDArray[np.void] = np.memmap(folder / FILES[2], dtype=INDEX, mode="r")

    def __len__(self) -> int:
        return len(self._index)

    def sample(self) -> list[tuple[str, list[int]]]:
        """Some of the texts that all rows of the files were made of, each with its ids."""
        return read_sample(self.folder)

    def select(self, selection: NDArray[np.int64]) -> "TokenStore":
        """The rows at `selection` (positions in this store, rising) as a store of their own, on the same files."""
        narrowed = TokenStore(self.folder, parts=self._parts, num_sources=self._num_sources)
        narrowed._index = self._index[selection]
        return narrowed

    def row(self, index: int) -> Row:
        """Row `index` as arrays of its own."""
        start, stop = self._extent(index)
        return Row(np.array(self._tokens[start:stop]), np.array(self._trained[start:stop]))

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """[rows] tokens of each row"""
        return np.ascontiguousarray(self._index["length"])

    @cached_property
    def supervised(self) -> NDArray[np.int32]:
        """[rows] trained tokens of each row"""
        return np.ascontiguousarray(self._index["supervised"])

    @cached_property
    def parents(self) -> NDArray[np.int64]:
        """[rows] the row of the sources that each is, or is a piece of; rising"""
        return np.ascontiguousarray(self._index["parent"])

    @property
    def source_sizes(self) -> tuple[int, ...]:
        """Rows of each source; the rows lie in this order."""
        return tuple(int(count) for count in np.bincount(self._index["source"], minlength=self._num_sources))

    def where(self, index: int) -> str:
        """Where the row comes from: `data.jsonl:17`, or `data.json, row 17`; a piece says which it is."""
        entry = self._index[index]
        name, between = self._parts[int(entry["part"])]
        place = f"{name}{between}{entry['number']}" if between else name
        return place if entry["piece"] < 0 else f"{place} (piece {entry['piece'] + 1})"

    def beyond(self, size: int) -> tuple[int, int] | None:
        """The first row that has an id of `size` or more, and that id; None where no row has one."""
        if not len(self._tokens) or int(self._tokens.max()) < size:
            return None
        for index in range(len(self)):
            ids = self._tokens[slice(*self._extent(index))]
            if ids.max(initial=-1) >= size:
                return index, int(ids.max())
        return None

    def prompt_ids(self, index: int) -> list[int]:
        """Ids of the prompt of the last answer, as they are when the prompt is asked alone: what is given to the model
        to generate that answer. Of an encoder-decoder the source, whole.
        """
        start, _ = self._extent(index)
        entry = self._index[index]
        if entry["asked_length"]:
            first = int(entry["asked"])
            return [int(token) for token in self._asked[first : first + entry["asked_length"]]]
        return [int(token) for token in self._tokens[start : start + self._index[index]["prompt_stop"]]]

    def is_lossy(self, index: int) -> bool:
        """Whether the ids of the last answer are not its text, because the tokenizer lacks characters of it."""
        return bool(self._index[index]["is_lossy"])

    def references(self, index: int) -> tuple[str, ...]:
        """Further right answers to the row's prompt, beside the last answer, which may be trained."""
        return self._references.of(int(self._index[index]["offset"]))

    def answer_ids(self, index: int) -> list[int]:
        """Ids of the last answer, without what ends its turn; of an encoder-decoder the target, without the special
        tokens around it.
        """
        start, _ = self._extent(index)
        entry = self._index[index]
        return [int(t) for t in self._tokens[start + entry["answer_start"] : start + entry["answer_stop"]]]

    def _extent(self, index: int) -> tuple[int, int]:
        entry = self._index[index]
        start = int(entry["offset"])
        return start, start + int(entry["length"])
