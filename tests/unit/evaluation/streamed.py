"""Tokenizers of every kind for the tests of streaming, and ids that are hard to decode piece by piece."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from fledge.evaluation.decoder_parts import _BYTES

HARD = (
    "Hi 你好 🌍👩‍👩‍👧‍👦 don't . , we 've I 'm it 's ! ?",
    "   three spaces\n\n\ttab \u00a0 \u2581\u2581 ## ##s </w> <0xE4> <unk>",
    "سلام नमस्ते Zażółć gęślą \ufffd\ufffd e\u0301 \U0001f1e9\U0001f1ea 0.5 , 'tis",
)
SENTENCES = (
    *HARD,
    "the cat sat on the mat and the dog did not say a word about it",
    "reading, writing, playing; he 'll play the player's play",
    "one two three four five six seven eight nine ten",
) * 3
SPECIAL = ("<s>", "</s>", "<unk>", "<pad>")


@dataclass(frozen=True)
class Streamed:
    """What a stream asks for."""

    backend: Tokenizer

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=True)


def trained(kind: str) -> Tokenizer:
    """A small tokenizer that is trained here, with special and ordinary added tokens."""
    made = _TRAINED[kind]()
    made.add_tokens([AddedToken("kar en", normalized=False), AddedToken(" Ġ你", normalized=False)])
    made.add_special_tokens(["<|turn|>"])
    return made


def _unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=list(SPECIAL), unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    return made


def _word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    made.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=250, special_tokens=list(SPECIAL), show_progress=False)
    )
    return made


def _bpe() -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=250, special_tokens=list(SPECIAL), end_of_word_suffix="</w>", show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    return made


def _byte_fallback() -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=40,
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    body = json.loads(made.to_str())
    body["added_tokens"] = [token for token in body["added_tokens"] if token["content"] in SPECIAL]
    body["model"]["byte_fallback"] = True
    made = Tokenizer.from_str(json.dumps(body))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


_TRAINED: dict[str, Callable[[], Tokenizer]] = {
    "unigram": _unigram,
    "word-piece": _word_piece,
    "bpe": _bpe,
    "byte-fallback": _byte_fallback,
}
TRAINED = tuple(_TRAINED)


def with_decoder(decoder: Any) -> Tokenizer:
    """The tokenizer with byte tokens, and another decoder."""
    made = trained("byte-fallback")
    made.decoder = decoder
    return made


def from_folder(folder: Path) -> Tokenizer:
    """A published tokenizer."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


class Draw:
    """Random ids over a tokenizer's vocabulary, byte tokens and special ones more often than others."""

    def __init__(self, backend: Tokenizer, *, seed: int) -> None:
        self._dice, self._size = random.Random(seed), backend.get_vocab_size(with_added_tokens=True)
        signs = {byte: sign for sign, byte in _BYTES.items()}
        names = [[f"<0x{byte:02X}>", signs[byte]] for byte in range(256)]
        found = [[backend.token_to_id(name) for name in both] for both in names]
        self.bytes = {b: index for b, ids in enumerate(found) for index in ids if index is not None}
        if len(self.bytes) < 200:  # those that no UTF-8 has may be missing
            self.bytes = {}
        self._added = list(backend.get_added_tokens_decoder())
        self._hard = [backend.encode(text, add_special_tokens=False).ids for text in HARD]

    def ids(self) -> list[int]:
        """A few ids."""
        return [token for _ in range(self._dice.randint(0, 8)) for token in self._some()]

    def _some(self) -> list[int]:
        dice = self._dice
        kind = dice.random()
        if kind < 0.35 and self.bytes:
            sign = chr(dice.choice([0x41, 0xE9, 0x4F60, 0x1F30D, 0x2581, 0xFFFD, dice.randrange(0x20, 0xD800)]))
            whole = list(sign.encode())
            cut = dice.choice([whole, whole[:-1], whole[1:], [dice.randrange(256)], whole])
            return [self.bytes[byte] for byte in cut if byte in self.bytes]
        if kind < 0.5 and self._added:
            return [dice.choice(self._added)]
        if kind < 0.65:
            ids = dice.choice(self._hard)
            start = dice.randrange(len(ids))
            return ids[start : start + dice.randint(1, 6)]
        return [dice.randrange(self._size)]

    def continuations(self) -> list[list[int]]:
        """What may come after some ids: nothing, other ids, and whatever may make a character whole or spoil it."""
        ends = [[], *([self._dice.randrange(self._size)] for _ in range(6)), *(self.ids() for _ in range(4))]
        text = self._hard[0][:3]
        if self.bytes:
            tails = [
                b"\x80",
                b"\xa0",
                b"\xbf",
                b"\xff",
                b"\xf0",
                b"A",
                b"\x80\x80",
                b"\xbf\xbd",
                b"\xa0\x80",
                b"\x90\x80\x80",
            ]
            tails += [b"\xbd", b"\x80\x80\x80"]
            spelt = [[self.bytes[byte] for byte in tail if byte in self.bytes] for tail in tails]
            ends += [tail + rest for tail in spelt for rest in ([], text)]
        return [*ends, text, *([token, *text] for token in self._added[:3])]
