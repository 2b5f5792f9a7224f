"""The parts of a tokenizer's decoder, each of which tells what is settled of its output as tokens come one by one.

Those that treat each token by itself are the library's own. The others are written anew here, for the library has them
for whole lists of tokens only. Source of what they do: the decoders of the library tokenizers, as they behave.
"""

import codecs
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tokenizers import Tokenizer
from tokenizers.decoders import Decoder

REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x(?:[0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")

Spec = Mapping[str, Any]
"""A part of a decoder as tokenizer.json has it."""


class Part(Protocol):
    """A part of a decoder. It takes tokens, or what comes after all tokens are joined: pieces of one text."""

    def push(self, token: str) -> list[str]:
        """What is settled of its output now."""

    def end(self) -> list[str]:
        """What was waiting."""


def line_of(spec: list[dict[str, Any]] | None) -> Callable[[], list[Part]] | None:
    """What makes the parts of a stream; None where there is a part that cannot be told piece by piece."""
    if spec is None:
        return None
    if not spec:
        return lambda: [_Spaced()]
    makers, is_one_text = [], False
    for place, part in enumerate(spec):
        kind, following = part["type"], spec[place + 1]["type"] if place + 1 < len(spec) else "Fuse"
        if kind != "Fuse":
            maker = _on_pieces(part) if is_one_text else _on_tokens(part, is_joined_next=following == "Fuse")
            if maker is None:
                return None
            makers.append(maker)
        is_one_text = is_one_text or kind in ("Fuse", "ByteLevel")
    return lambda: [maker() for maker in makers]


def _on_tokens(part: Spec, *, is_joined_next: bool) -> Callable[[], Part] | None:
    """`is_joined_next` says that nothing looks at single tokens any more, so that they may be told in pieces."""
    kind = part["type"]
    if kind in ("Replace", "Strip"):
        return lambda: _Each(part)
    if kind in ("Metaspace", "WordPiece"):
        return lambda: _Each(part, is_first_special=True)
    if kind == "ByteLevel":
        return _ByteLevel
    if kind == "ByteFallback":
        return lambda: _ByteRuns(in_pieces=is_joined_next)
    if kind == "BPEDecoder" and is_joined_next and part["suffix"]:
        return lambda: _WordEnds(part["suffix"])
    return None


def _on_pieces(part: Spec) -> Callable[[], Part] | None:
    kind = part["type"]
    if kind == "Strip":
        return lambda: _Ends(part["content"], part["start"], part["stop"])
    if kind == "Metaspace" or (kind == "Replace" and len(part["pattern"].get("String", "")) == 1):
        return lambda: _Each(part)  # one character at a time, whatever stands beside it
    return None


def _decoder(part: Spec) -> Decoder:
    """One part as the library makes it."""
    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    return Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "decoder": part, "model": model})
    ).decoder


class _Each:
    """Each token by itself, as the library has it. Of some parts the first token is another case."""

    def __init__(self, part: Spec, *, is_first_special: bool = False) -> None:
        self._decoder, self._is_first_special = _decoder(part), is_first_special
        self._before: list[str] = []

    def push(self, token: str) -> list[str]:
        told = self._decoder.decode([*self._before, token])[len(self._before) :]
        if self._is_first_special:
            self._before = ["x"]
        return [told]

    def end(self) -> list[str]:
        return []


class _Spaced:
    """Tokens with a space between each two: what the library does where there is no decoder."""

    _before = ""

    def push(self, token: str) -> list[str]:
        told, self._before = self._before + token, " "
        return [told]

    def end(self) -> list[str]:
        return []


class _WordEnds:
    """A suffix that ends a word: a space where something follows, nothing where nothing does."""

    def __init__(self, suffix: str) -> None:
        self._suffix, self._held = suffix, ""

    def push(self, token: str) -> list[str]:
        before, cut = self._held.replace(self._suffix, " "), token.find(self._suffix)
        told, self._held = (token, "") if cut < 0 else (token[:cut], token[cut:])
        return [before + told]

    def end(self) -> list[str]:
        return [self._held.replace(self._suffix, "")]


class _ByteLevel:
    """Each character of a token is a byte; bytes that are no UTF-8 become U+FFFD, one for each longest part of one.

    A character is settled when its last byte is there, and U+FFFD when a byte comes that cannot be the next.
    """

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: str) -> list[str]:
        return [self._utf8.decode(_bytes_of(token))]

    def end(self) -> list[str]:
        return [self._utf8.decode(b"", final=True)]


class _ByteRuns:
    """Tokens like <0xE4> are bytes. A run of them is UTF-8 as a whole, or each of its bytes is U+FFFD.

    So no character of a run is settled before the run ends or cannot become UTF-8 any more. U+FFFD at the start of a
    run is: it is that both ways. It is told at once with `in_pieces`, and with its run where single tokens count.
    """

    def __init__(self, *, in_pieces: bool) -> None:
        self._in_pieces = in_pieces
        self._begin()

    def _begin(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("strict")
        self._text: list[str] = []
        self._num_bytes, self._num_told = 0, 0
        self._is_broken = False

    def push(self, token: str) -> list[str]:
        if not _BYTE_TOKEN.fullmatch(token):
            return [*self.end(), token]
        self._num_bytes += 1
        if not self._is_broken:
            try:
                self._text.append(self._utf8.decode(bytes([int(token[3:5], 16)])))
            except UnicodeDecodeError:
                self._is_broken = True
        return self._settled()

    def _settled(self) -> list[str]:
        if self._is_broken:
            fresh = self._num_bytes - self._num_told
        elif self._in_pieces and self._text[-1] == REPLACEMENT and len(self._text) == 3 * (self._num_told + 1):
            fresh = 1
        else:
            fresh = 0
        self._num_told += fresh
        return [REPLACEMENT] * fresh

    def end(self) -> list[str]:
        if not self._num_bytes:
            return []
        if not self._is_broken and not self._utf8.getstate()[0]:
            rest = ["".join(self._text)[self._num_told :]]
        else:
            rest = [REPLACEMENT] * (self._num_bytes - self._num_told)
        self._begin()
        return rest


class _Ends:
    """One text without some of the signs `content` that it may begin and end with: at most `start` and `stop`."""

    def __init__(self, content: str, start: int, stop: int) -> None:
        self._content, self._start, self._stop, self._held = content, start, stop, ""

    def push(self, token: str) -> list[str]:
        while self._start and token.startswith(self._content):
            token, self._start = token[len(self._content) :], self._start - 1
        if token:
            self._start = 0
        text = self._held + token
        num_held = min(self._stop, len(text) - len(text.rstrip(self._content)))
        self._held = text[len(text) - num_held :]
        return [text[: len(text) - num_held]]

    def end(self) -> list[str]:
        return []


def _byte_signs() -> dict[str, int]:
    """The sign that stands for each byte in a byte-level vocabulary: printable ones for themselves, others from U+0100
    on. Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, and its tokenizer.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_signs()


def _bytes_of(token: str) -> bytes:
    """A token with a sign that stands for no byte is an added one, and text as it is."""
    found = [_BYTES.get(sign) for sign in token]
    return token.encode() if None in found else bytes(byte for byte in found if byte is not None)
