"""Tokenises text in which some control tokens are a person's words: those stay text, all others become tokens."""

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any

from tokenizers import Encoding, Tokenizer

from fledge.errors import DataError

_MARKS = (range(0xFDD0, 0xFDF0), range(0xF0000, 0xFFFFE))
"""Unicode's noncharacters, which no text for interchange holds; for a text that has them all, those for private use."""


class LiteralEncoder:
    """A tokenizer and copies of it in which the control tokens have other names.

    In a copy the first character of each control token is a mark. So text that spells a control token is ordinary text
    to the copy, and the same text with the mark in front is the token. A name and its marked name are equally long, so
    that character offsets stay those of the text.
    """

    def __init__(self, backend: Tokenizer, control: Collection[str]) -> None:
        self._backend = backend
        self._control = sorted(control, key=len, reverse=True)
        self._copies: dict[str, Tokenizer] = {}

    def encode(self, text: str, literals: Sequence[int]) -> Encoding:
        """Ids of `text`. A control token that begins at one of the positions `literals` is encoded as text."""
        seen = set(text)
        mark = next(mark for mark in map(chr, chain(*_MARKS)) if mark not in seen)
        if mark not in self._copies:
            if len(self._copies) > 1:  # only a text that holds marks itself needs another copy than the first
                self._copies.popitem()
            self._copies[mark] = _with_marks(self._backend, self._control, mark)
        characters = list(text)
        for start in self._tokens_at(text, frozenset(literals)):
            characters[start] = mark
        return self._copies[mark].encode("".join(characters), add_special_tokens=False)

    def _tokens_at(self, text: str, literals: frozenset[int]) -> Iterator[int]:
        """Where control tokens begin that are no person's words, from left to right, the longest first."""
        place = 0
        starts = {token[0] for token in self._control}
        while place < len(text):
            if text[place] in starts and place not in literals:
                found = next((token for token in self._control if text.startswith(token, place)), None)
                if found is not None and not any(other in literals for other in range(place, place + len(found))):
                    yield place
                    place += len(found)
                    continue
            place += 1


def _with_marks(backend: Tokenizer, control: Sequence[str], mark: str) -> Tokenizer:
    state = json.loads(backend.to_str())
    names = {token: mark + token[1:] for token in control}
    if len(set(names.values())) < len(names):
        raise DataError("two control tokens differ in their first character alone, so they cannot be kept apart")
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    _rename(state["model"], names)
    copy = Tokenizer.from_str(json.dumps(state))
    copy.no_truncation()
    copy.no_padding()
    return copy


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    """Rename tokens in a model's vocabulary. Merges that would make one of them of ordinary text go."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): index for token, index in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, names)]


def _touches(merge: Any, names: dict[str, str]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names
