"""Keeps some of the rows' texts with their ids, so that a tokenizer can be held against what was trained."""

import json
from collections.abc import Iterable
from pathlib import Path

from fledge.data.tokenize import TextTokenizer

SAMPLE = "texts.json"
MOST_TEXTS, MOST_CHARACTERS = 2000, 4_000_000
LONGEST = 100_000
"""Characters of a text that are kept."""


class TextSample:
    """Every n-th of the texts that it is handed, spread over all of them; n grows where they become too many."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._every = 1
        self._seen = 0
        self._characters = 0

    def add(self, texts: Iterable[str]) -> None:
        """Take notice of texts, in their order."""
        for text in texts:
            if self._seen % self._every == 0:
                self._kept.append(text[:LONGEST])
                self._characters += len(self._kept[-1])
            self._seen += 1
            while len(self._kept) > MOST_TEXTS or (self._characters > MOST_CHARACTERS and len(self._kept) > 1):
                self._kept = self._kept[::2]
                self._every *= 2
                self._characters = sum(map(len, self._kept))

    def write(self, folder: Path, tokenizer: TextTokenizer) -> None:
        """Write the texts that were kept with the ids that the tokenizer has for them."""
        ids = (encoding.ids for encoding in tokenizer.encode_batch(self._kept))
        pairs = list(zip(self._kept, ids, strict=True))
        (folder / SAMPLE).write_text(json.dumps(pairs), encoding="utf-8")


def read_sample(folder: Path) -> list[tuple[str, list[int]]]:
    """Some of the texts of a store's rows, each with its ids."""
    return [(text, ids) for text, ids in json.loads((folder / SAMPLE).read_text(encoding="utf-8"))]
