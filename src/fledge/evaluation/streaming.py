"""The text of an answer while its ids come one by one: each character as soon as no later id can change it.

ids -> token texts, special ones left out -> the decoder's parts, one after the other -> pieces of text

A character is settled when every continuation of the ids decodes to a text that has it at its place, no continuation
at all among them. A stream tells no other ones, and these at once, whatever the ids are. Two may wait for the end of a
run of byte tokens, in decoders that are rare: U+FFFD spelt in bytes, where single tokens are looked at afterwards, and
signs that are stripped from a text's end. `tokenizers.DecodeStream` is another thing: it tells nothing while the text
ends with U+FFFD, and fails where a byte token changes a character that it has told.
"""

import json
import random
from collections.abc import Sequence
from typing import Any, Protocol

from tokenizers import Tokenizer

from fledge.evaluation.decoder_parts import Part, line_of

_TRIALS, _TRIAL_IDS = 4, 24


class Decoding(Protocol):
    """What a stream needs of a tokenizer."""

    @property
    def backend(self) -> Tokenizer:
        """The library's tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""


class TextStream:
    """Tells an answer's text piece by piece. Work and memory for one id do not grow with the answer's length.

    The pieces put together are `decode` of all ids. The stream follows the parts of the tokenizer's decoder. Where a
    part cannot be told piece by piece, or where the pieces of a trial are not what `decode` says (a tokenizer with code
    of its own), the whole text is told at the end.
    """

    def __init__(self, vocabulary: Decoding) -> None:
        self._decode = vocabulary.decode
        self._backend = backend = vocabulary.backend
        self._special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        self._make = line_of(_spec_of(backend))
        self._parts = self._make() if self._make is not None and self._holds() else None
        self._ids: list[int] = []

    @property
    def is_live(self) -> bool:
        """Whether text is told before the end."""
        return self._parts is not None

    def push(self, token: int) -> str:
        """The characters that are settled now and were not before."""
        if self._parts is None:
            self._ids.append(token)
            return ""
        return self._pushed(self._parts, token)

    def end(self) -> str:
        """The characters that were waiting for what might have come."""
        return self._decode(self._ids) if self._parts is None else _ended(self._parts)

    def _pushed(self, parts: Sequence[Part], token: int) -> str:
        text = self._backend.id_to_token(token)
        return "" if text is None or text in self._special else _through(parts, [text])

    def _holds(self) -> bool:
        """Whether the pieces of some random ids, put together, are what `decode` says of them."""
        dice, size = random.Random(0), self._backend.get_vocab_size(with_added_tokens=True)
        assert self._make is not None
        for _ in range(_TRIALS if size else 0):
            ids, parts = [dice.randrange(size) for _ in range(_TRIAL_IDS)], self._make()
            if "".join(self._pushed(parts, token) for token in ids) + _ended(parts) != self._decode(ids):
                return False
        return True


def _through(parts: Sequence[Part], tokens: list[str]) -> str:
    for part in parts:
        tokens = [out for token in tokens for out in part.push(token)]
    return "".join(tokens)


def _ended(parts: Sequence[Part]) -> str:
    """Each part ends after those before it have, and gets what these were holding."""
    return "".join(_through(parts[place + 1 :], part.end()) for place, part in enumerate(parts))


def _spec_of(backend: Tokenizer) -> list[dict[str, Any]] | None:
    """The decoder's parts as tokenizer.json has them; none where tokens are joined by spaces; None for code."""
    if backend.decoder is None:
        return []
    try:
        spec = json.loads(backend.decoder.__getstate__())
    except (TypeError, ValueError):
        return None
    return _flat(spec)


def _flat(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for part in spec["decoders"] for one in _flat(part)] if spec["type"] == "Sequence" else [spec]
