"""Small real tokenizers that meet the data room's Protocol, trained on the spot."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jinja2
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.utils.chat_template_utils import render_jinja_template

from fledge.errors import DataError
from fledge.models.chat_template import answer_spans
from fledge.models.literal import LiteralEncoder
from fledge.models.turn_ends import turn_ends

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIALS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
CORPUS = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Instruction:\nName three birds.\n\n### Response:\nOwl, kite, heron. The quick brown fox jumps over the dog.",
    "Hello there, how are you? I am an assistant.  Two spaces,\ttabs\nand lines. user assistant system",
    "Naïve café über 東京 привет 🙂 numbers 0 1 2 3 4 5 6 7 8 9 10 2024",
] * 3


@dataclass(frozen=True)
class Tiny:
    """A tokenizer for tests."""

    backend: Tokenizer
    bos_token: str | None = "<s>"
    eos_token: str | None = "</s>"
    template: str | None = None
    puts_bos: bool = True
    puts_eos: bool = False
    decoder_start_id: int | None = None
    is_lossless: bool = True
    calls: list[int] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict, compare=False, init=False)

    @property
    def identity(self) -> str:
        parts = [self.backend.to_str(), self.template, self.puts_bos]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def bos_token_id(self) -> int | None:
        return self.backend.token_to_id(self.bos_token) if self.bos_token else None

    @property
    def eos_token_id(self) -> int | None:
        return self.backend.token_to_id(self.eos_token) if self.eos_token else None

    @property
    def pad_token_id(self) -> int:
        return self.eos_token_id or 0

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        return (self.bos_token_id,) if self.puts_bos and self.bos_token_id is not None else ()

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        return (self.eos_token_id,) if self.puts_eos and self.eos_token_id is not None else ()

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return {token.content: index for index, token in self.backend.get_added_tokens_decoder().items()}

    @property
    def has_chat_template(self) -> bool:
        return self.template is not None

    @property
    def stop_ids(self) -> frozenset[int]:
        if "stop_ids" not in self.known:
            self.known["stop_ids"] = self._stop_ids()
        return self.known["stop_ids"]

    def _special(self) -> set[str]:
        return {token.content for token in self.backend.get_added_tokens_decoder().values() if token.special}

    def _stop_ids(self) -> frozenset[int]:
        found = {self.eos_token_id} - {None}
        with contextlib.suppress(jinja2.TemplateSyntaxError):
            if self.template:
                found |= turn_ends(self.render, self.special_tokens, special=self._special())
        return frozenset(found)

    @property
    def control_tokens(self) -> frozenset[str]:
        return frozenset(token for token in self.special_tokens if token.strip())

    @property
    def template_tokens(self) -> frozenset[str]:
        return frozenset(token for token in self.special_tokens if token in (self.template or ""))

    def marked_answers(self, messages: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]] | None:
        return answer_spans(
            self.template, messages, tokens={"bos_token": self.bos_token or "", "eos_token": self.eos_token or ""}
        )

    def template_names(self, field: str) -> bool:
        return field in (self.template or "")

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [self.text(row) for row in rows]

    def encode_literal(self, text: str, literals: Sequence[int]) -> Encoding:
        return LiteralEncoder(self.backend, self.control_tokens).encode(text, literals)

    @property
    def template_notes(self) -> tuple[str, ...]:
        return ()

    def check_template(self) -> None:
        pass

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Encoding]:
        self.calls.append(len(texts))
        return self.backend.encode_batch(list(texts), add_special_tokens=False)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        try:
            rendered, _ = render_jinja_template(
                [list(messages)],
                chat_template=self.template,
                tools=list(tools) or None,
                add_generation_prompt=add_generation_prompt,
                **(options or {}),
                bos_token=self.bos_token or "",
                eos_token=self.eos_token or "",
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise DataError(f"the chat template refuses this conversation: {error}") from error
        return rendered[0]

    def text(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=False)


@cache
def byte_level(*, trims: bool = True) -> Tokenizer:
    """GPT-2's kind: byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trims)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@cache
def byte_fallback() -> Tokenizer:
    """Llama 2's kind: BPE over the whole text with a dummy space in front; unknown characters become their bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=list(SPECIALS), show_progress=False)
    tokenizer.train_from_iterator([text[:80] for text in CORPUS[:3]], trainer)
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    state["model"] |= {"byte_fallback": True, "fuse_unk": True}
    state["decoder"] = json.loads(decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]).__getstate__())
    return Tokenizer.from_str(json.dumps(state))


def llama_like(template: str | None = None) -> Tiny:
    """Puts a BOS before each text."""
    return Tiny(byte_fallback(), template=template)


def gpt_like(template: str | None = None) -> Tiny:
    """Puts nothing before a text."""
    return Tiny(byte_level(), template=template, puts_bos=False)


def t5_like(template: str | None = None) -> Tiny:
    """An encoder-decoder's: puts an end token after each text, and starts its decoder with <unk>."""
    return Tiny(byte_level(), template=template, puts_bos=False, puts_eos=True, decoder_start_id=0)


def bart_like() -> Tiny:
    """An encoder-decoder's: puts a token on both sides of each text, and starts its decoder with the end token."""
    return Tiny(byte_level(), puts_eos=True, decoder_start_id=2)


def bare_pairs() -> Tiny:
    """An encoder-decoder's whose tokenizer puts nothing around a text."""
    return Tiny(byte_level(), puts_bos=False, decoder_start_id=0)


def backend_of(folder_or_file: Any) -> Tokenizer:
    """A tokenizer.json without the truncation and padding that some carry."""
    tokenizer = Tokenizer.from_file(str(folder_or_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
