"""The further right answers that some rows of a store have, kept as text beside it."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_PLACES = np.dtype(
    [
        ("row", "<i8"),  # where the row's tokens begin in the store: each row has a place of its own
        ("start", "<i8"),  # where its answers begin in the texts
        ("length", "<i8"),  # bytes
    ]
)
FILES = ("references.json", "references.bin")
"""A list of texts as JSON for each row that has any, one after the other, and where each lies. Both or none exist."""


class ReferenceWriter:
    """Appends the further answers of rows; the files are made with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[IO[bytes]] = []
        self._start = 0

    def write(self, offset: int, answers: Sequence[str]) -> None:
        """Keep the further answers of the row whose tokens begin at `offset`; nothing where there are none."""
        if not answers:
            return
        self._files = self._files or [(self._folder / name).open("wb") for name in FILES]
        texts, places = self._files
        written = json.dumps(list(answers), ensure_ascii=False).encode()
        texts.write(written)
        places.write(np.array([(offset, self._start, len(written))], dtype=_PLACES).tobytes())
        self._start += len(written)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


class References:
    """Reads what a ReferenceWriter wrote into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, offset: int) -> tuple[str, ...]:
        """The further answers of the row whose tokens begin at `offset`."""
        place = int(np.searchsorted(self._places["row"], offset))
        if place == len(self._places) or self._places["row"][place] != offset:
            return ()
        _, start, length = (int(value) for value in self._places[place])
        with (self._folder / FILES[0]).open("rb") as file:
            file.seek(start)
            return tuple(json.loads(file.read(length)))

    @cached_property
    def _places(self) -> NDArray[np.void]:
        path = self._folder / FILES[1]
        return np.fromfile(path, dtype=_PLACES) if path.exists() else np.zeros(0, dtype=_PLACES)


def files_in(folder: Path) -> tuple[str, ...]:
    """Which of FILES a store has: both, or none."""
    return tuple(name for name in FILES if (folder / name).exists())
