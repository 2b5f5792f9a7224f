"""The tokenizer of a base: text to ids, chat templates, and the tokens that end a turn."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerBase

from fledge.errors import DataError
from fledge.models.chat_template import (
    RENDERING,
    TODAY,
    answer_spans,
    asks_the_date,
    check,
    render,
    single,
)
from fledge.models.literal import LiteralEncoder
from fledge.models.turn_ends import turn_ends

_SHORT = [{"role": role, "content": "a"} for role in ("system", "user", "assistant")]
_HARD_TEXT = "{a}<b>|~`^\n\n\tc  d\r\ne\u0301\u00e9\ufb01\u00bd\u2460\u4f60\U0001f642\ua66e\u200d\u00a0.?"
"""Characters that vocabularies lack, and those that normalisers change."""
DIGEST_KIND = "rules:"
"""What `Tokenizer.digest` begins with; manifests of Fledge 0.1 have a digest of another kind."""


class Tokenizer:
    """A fast tokenizer with what the data room and generation ask of it."""

    def __init__(
        self,
        hf: PreTrainedTokenizerBase,
        *,
        new_tokens: tuple[int, ...] = (),
        notes: tuple[str, ...] = (),
        decoder_start_id: int | None = None,
        pad_token_id: int | None = None,
        declared_stops: Sequence[int] = (),
    ) -> None:
        self.hf = hf
        self.new_tokens = new_tokens
        """Ids that the recipe added and the base has never seen."""
        self.notes = notes
        """What a person should know of the tokens that the recipe adds."""
        self._declared_stops = declared_stops
        self.decoder_start_id = decoder_start_id
        """The id that the decoder of an encoder-decoder starts with; None for a causal model."""
        self.pad_token_id = padding_of(hf) if pad_token_id is None else pad_token_id
        """Some id that the base has an embedding for: padding is masked by position, so even the end token will do."""
        self._backend: Backend = hf.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()

    @property
    def rules(self) -> str:
        """The tokenizer.json of this tokenizer, as it reads text now."""
        return str(self._backend.to_str())

    @cached_property
    def digest(self) -> str:
        """Digest of what is saved with an adapter and decides ids and text: rules, chat template, special tokens."""
        return digest_of(self.rules, template=self.hf.chat_template, special_tokens=self.hf.special_tokens_map)

    @cached_property
    def identity(self) -> str:
        """Digest of everything that decides ids and rendered text."""
        return hashlib.sha256(json.dumps([self.digest, RENDERING]).encode()).hexdigest()

    @property
    def first_identity(self) -> str:
        """The digest that manifests of Fledge 0.1 have in the place of `digest`."""
        parts = [self._backend.to_str(), self.hf.chat_template or "", self.hf.special_tokens_map, "1"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def has_own_code(self) -> bool:
        """Whether its class is code that lies with the base, and not one of the library's."""
        return type(self.hf).__module__.partition(".")[0] != "transformers"

    @property
    def bos_token(self) -> str | None:
        return self.hf.bos_token

    @property
    def eos_token(self) -> str | None:
        return self.hf.eos_token

    @property
    def bos_token_id(self) -> int | None:
        return self.hf.bos_token_id

    @property
    def eos_token_id(self) -> int | None:
        return self.hf.eos_token_id

    @property
    def unk_token_id(self) -> int | None:
        """The id that stands for characters which the tokenizer cannot write; None where it has none of its own.

        GPT-2's tokenizers name their end token so, and write every character.
        """
        index = self.hf.unk_token_id
        return None if index is None or index == self.eos_token_id else int(index)

    @property
    def backend(self) -> Backend:
        """The library's tokenizer."""
        return self._backend

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Ids that the tokenizer itself puts before a plain text (a BOS, or nothing)."""
        return self._around[0]

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        """Ids that the tokenizer itself puts after a plain text (T5's end token, or nothing)."""
        return self._around[1]

    @cached_property
    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        probe = self._backend.encode("a", add_special_tokens=True)
        bare = self._backend.encode("a", add_special_tokens=False)
        for start in range(len(probe.ids) - len(bare.ids) + 1):
            stop = start + len(bare.ids)
            if probe.ids[start:stop] == bare.ids:
                return tuple(probe.ids[:start]), tuple(probe.ids[stop:])
        return (), ()

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Every special or added token, text to id."""
        return {token.content: index for index, token in self._backend.get_added_tokens_decoder().items()}

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids after which an answer is complete.

        They are the end of text and what ends a turn in the chat template. A template may end no turn (GLM); then those
        count that the base's generation settings name, such as the token that opens the next message.
        """
        found = {self.eos_token_id} if self.eos_token_id is not None else set()
        if self.has_chat_template:
            added = self._backend.get_added_tokens_decoder().values()
            special = {token.content for token in added if token.special}
            ends = turn_ends(self.render, self.special_tokens, special=special)
            found |= ends or {index for index in self._declared_stops if 0 <= index < self.size}
        return frozenset(found)

    @cached_property
    def control_tokens(self) -> frozenset[str]:
        """The tokens that steer the model: special ones, and those that the chat template puts around people's text."""
        added = self._backend.get_added_tokens_decoder()
        found = {token.content for token in added.values() if token.special}
        found |= {token.content for index, token in added.items() if index in self.stop_ids}
        found |= {token for token in (self.bos_token, self.eos_token) if token}
        return frozenset(token for token in found | self._written(_SHORT[:1], _SHORT[1:2]) if token.strip())

    @cached_property
    def template_tokens(self) -> frozenset[str]:
        """The added tokens that the chat template writes around people's text and at the end of answers."""
        return self._written(_SHORT[:1], _SHORT[1:2], _SHORT[1:])

    def _written(self, *conversations: Sequence[Mapping[str, Any]]) -> frozenset[str]:
        """The added tokens that the chat template writes for any of the conversations."""
        text = ""
        for turns in conversations:
            with contextlib.suppress(DataError):
                text += self.render(turns) if self.has_chat_template else ""
        return frozenset(token for token in self.special_tokens if token in text)

    @cached_property
    def _literal(self) -> LiteralEncoder:
        return LiteralEncoder(self._backend, self.control_tokens)

    def encode_literal(self, text: str, literals: Sequence[int]) -> Encoding:
        """Tokenise as `encode_batch` does, but control tokens that begin at the positions `literals` stay text."""
        return self._literal.encode(text, literals)

    def marked_answers(self, messages: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]] | None:
        """Character ranges that the template's {% generation %} tags mark; None where it has no such tags."""
        return answer_spans(self._template(), messages, tokens=self.hf.special_tokens_map)

    def template_names(self, field: str) -> bool:
        """Whether the chat template's text names this field of a message."""
        return self.has_chat_template and re.search(rf"\b{re.escape(field)}\b", self._template()) is not None

    @property
    def has_chat_template(self) -> bool:
        return bool(self.hf.chat_template)

    @property
    def template_notes(self) -> tuple[str, ...]:
        """What a person should know of every text that the chat template writes."""
        if self.has_chat_template and asks_the_date(self._template()):
            return (f"the chat template writes the date; it is always told {TODAY}",)
        return ()

    def check_template(self) -> None:
        """Raise DataError where the chat template is no valid Jinja."""
        check(self._template())

    @property
    def size(self) -> int:
        """Number of ids, the highest one plus one."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenise without adding special tokens; special tokens written in the text become their ids."""
        return self._backend.encode_batch(list(texts), add_special_tokens=False)

    @cached_property
    def is_lossless(self) -> bool:
        """Whether every text comes back when its ids are decoded, space around it left aside."""
        ids = self._backend.encode(_HARD_TEXT, add_special_tokens=False).ids
        return self.decode_batch([ids])[0].strip() == _HARD_TEXT

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of ids, special tokens written out."""
        return [
            str(text) for text in self._backend.decode_batch([list(ids) for ids in rows], skip_special_tokens=False)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def decode_whole(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens among it."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The chat template's text. Raises DataError with the template's own words where it refuses."""
        return render(
            self._template(),
            messages,
            tokens=self.hf.special_tokens_map,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            options=options,
        )

    def _template(self) -> str:
        template = self.hf.chat_template
        if not template:
            cure = "set data.chat_template: chatml, or a Jinja file"
            raise DataError("this base has no chat template", where="data.train.format: chat", cure=cure)
        return single(template)


def digest_of(rules: str, *, template: Any, special_tokens: Mapping[str, Any]) -> str:
    """Digest of a tokenizer.json, a chat template and the special tokens by name.

    How a text is padded or cut to a length is left out: it is no part of how text is read.
    """
    parts = {name: value for name, value in json.loads(rules).items() if name not in ("padding", "truncation")}
    body = json.dumps([parts, template or "", special_tokens], sort_keys=True)
    return f"{DIGEST_KIND}{hashlib.sha256(body.encode()).hexdigest()}"


def ids_by(rules: str, texts: Sequence[str]) -> list[list[int]]:
    """What a tokenizer.json makes of texts, without special tokens of its own around them."""
    return [one.ids for one in Backend.from_str(rules).encode_batch(list(texts), add_special_tokens=False)]


def padding_of(hf: PreTrainedTokenizerBase, *, num_embeddings: int | None = None) -> int:
    """The padding or the end token, whichever the base has an embedding for: some tokenizers were given a padding token
    that their base was not.
    """
    for candidate in (hf.pad_token_id, hf.eos_token_id):
        if candidate is not None and (num_embeddings is None or candidate < num_embeddings):
            return int(candidate)
    return 0


def ids_in(value: Any) -> list[int]:
    """Ids that a configuration gives as one number, as a list, or not at all."""
    found = value if isinstance(value, list | tuple) else [value]
    return [index for index in found if isinstance(index, int) and not isinstance(index, bool)]
