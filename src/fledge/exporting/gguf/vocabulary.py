"""A tokenizer's vocabulary as a GGUF file has it: tokens with their kinds, merges or scores, one row each.

llama.cpp reads what is written here (src/llama-vocab.cpp): `gpt2` for byte-level BPE, `llama` for SentencePiece's BPE
with bytes to fall back to, `t5` for unigrams.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gguf

from fledge.exporting.gguf.pieces import BYTES, UNREACHED, scores_of
from fledge.exporting.gguf.splitting import SPACE, is_unigram_of_t5, name_of_splitting, puts_space_first, unlike
from fledge.models.tokenizer import Tokenizer

Kind = gguf.TokenType


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What llama.cpp tokenises with. `tokens`, `kinds` and `scores` have one entry for each row of the embedding."""

    model: str
    splitting: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    puts_space_first: bool | None = None
    charsmap: bytes = b""
    """SentencePiece's table of normalised characters."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """A tokenizer.json with its parts looked up."""

    all: dict[str, Any]
    model: dict[str, Any]
    added: dict[int, dict[str, Any]]


def rules_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer.json of a tokenizer, as it tokenises now."""
    rules: dict[str, Any] = json.loads(tokenizer.hf.backend_tokenizer.to_str())
    return rules


def read_vocabulary(tokenizer: Tokenizer, *, rows: int) -> Vocabulary:
    """The vocabulary, filled up to `rows`, which is what the embedding has.

    Added tokens beyond that are left out: the model can neither read nor write them. Raises ModelError where llama.cpp
    has no such tokenizer, or where the embedding has too few rows for the words that merges make.
    """
    content = rules_of(tokenizer)
    words = content["model"]["vocab"]
    size = len(words) if isinstance(words, list) else max(words.values(), default=-1) + 1
    if size > rows:
        cure = "nothing was written; report this with the base's name"
        raise unlike(f"it has {size} tokens, but {rows} rows in the embedding", cure=cure)
    added = {token["id"]: token for token in content["added_tokens"] if token["id"] < rows}
    rules = _Rules(content, content["model"], added)
    kind = rules.model["type"]
    if kind == "BPE" and rules.model.get("byte_fallback"):
        return _sentencepiece(rules, rows)
    if kind == "BPE":
        return _byte_level(rules, rows)
    if kind == "Unigram" and not rules.model.get("byte_fallback") and is_unigram_of_t5(content):
        return _unigrams(rules, rows)
    cure = "known are byte-level BPE, SentencePiece's BPE with byte tokens, and T5's unigrams; export to hf instead"
    raise unlike(f"llama.cpp has no tokenizer like this one: {kind}", cure=cure)


def _byte_level(rules: _Rules, rows: int) -> Vocabulary:
    splitting = name_of_splitting(rules.all)
    _check_plain_bpe(rules.model)
    tokens, kinds = _rows(rules, rules.model["vocab"], rows)
    merges = [" ".join(pair) for pair in _pairs(rules.model)]
    if not merges or any(merge.count(" ") != 1 for merge in merges):
        raise unlike("it has no merges, or a space in one")
    return Vocabulary("gpt2", splitting, tokens, kinds, merges=tuple(merges))


def _sentencepiece(rules: _Rules, rows: int) -> Vocabulary:
    starts_with_space = puts_space_first(rules.all)
    _check_plain_bpe(rules.model)
    vocabulary, added = rules.model["vocab"], {token["content"]: index for index, token in rules.added.items()}
    # an added token with SentencePiece's space in it is not cut out of raw text, but made by merges as any other piece:
    # Gemma's runs of spaces are
    joined = {text for text, index in added.items() if SPACE in text and not rules.added[index]["special"]}
    scores = scores_of(vocabulary | added, _pairs(rules.model), apart=frozenset(added.keys() - joined))
    cut_out = {
        index: rules.added[index] for text, index in added.items() if not (text in joined and text in vocabulary)
    }
    rules = replace(rules, added=cut_out)
    tokens, kinds = _rows(rules, rules.model["vocab"], rows, unknown=rules.model["unk_token"], bytes_too=True)
    return Vocabulary(
        "llama",
        "default",
        tokens,
        kinds,
        scores=tuple(scores.get(token, UNREACHED) for token in tokens),
        puts_space_first=starts_with_space,
    )


def _unigrams(rules: _Rules, rows: int) -> Vocabulary:
    entries, unknown = rules.model["vocab"], rules.model["unk_id"]
    ids = {token: index for index, (token, _) in enumerate(entries)}
    tokens, kinds = _rows(rules, ids, rows, unknown=entries[unknown][0])
    scores: dict[str, float] = dict(entries)
    normalizer = rules.all["normalizer"]
    if normalizer is not None and normalizer["type"] != "Precompiled":
        raise unlike(f"llama.cpp has no normaliser {normalizer['type']}")
    return Vocabulary(
        "t5",
        "default",
        tokens,
        kinds,
        scores=tuple(scores.get(token, UNREACHED) for token in tokens),
        puts_space_first=True,
        charsmap=base64.b64decode(normalizer["precompiled_charsmap"]) if normalizer else b"",
    )


def _check_plain_bpe(model: Mapping[str, Any]) -> None:
    odd = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if odd:
        raise unlike(f"llama.cpp's BPE has no {', '.join(odd)}")


def _pairs(model: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return [(left, right) for left, right in pairs]


def _rows(
    rules: _Rules, vocabulary: Mapping[str, int], rows: int, *, unknown: str | None = None, bytes_too: bool = False
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Texts and kinds by id. Rows without a token get a name that nobody writes, for llama.cpp wants each one once."""
    tokens = [f"<unused_{index}>" for index in range(rows)]
    kinds = [int(Kind.UNUSED)] * rows
    for text, index in vocabulary.items():
        tokens[index], kinds[index] = text, int(Kind.NORMAL)
    for index, token in rules.added.items():
        tokens[index] = token["content"]
        kinds[index] = int(Kind.CONTROL if token["special"] else Kind.USER_DEFINED)
    if unknown is not None:
        kinds[vocabulary[unknown]] = int(Kind.UNKNOWN)
    for text in BYTES if bytes_too else ():
        if text in vocabulary:
            kinds[vocabulary[text]] = int(Kind.BYTE)
    _check_texts(tokens)
    return tuple(tokens), tuple(kinds)


def _check_texts(tokens: Sequence[str]) -> None:
    ids: dict[str, int] = {}
    for index, text in enumerate(tokens):
        if not text:
            raise unlike(f"its token {index} has no text")
        if (before := ids.setdefault(text, index)) != index:
            cure = "give it another text, or export to hf instead"
            raise unlike(f"the tokens {before} and {index} are both {text!r}", cure=cure)


def write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary, *, tokenizer: Tokenizer) -> None:
    """Add the vocabulary, the special tokens and the chat template, to the byte as the tokenizer has it.

    Raises ModelError where the tokenizer puts something else before or after a text than its begin or end token, or has
    no end token, or a template with more stop tokens than the format has places for.
    """
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.splitting)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.puts_space_first is not None:
        writer.add_add_space_prefix(vocabulary.puts_space_first)
    if vocabulary.model == "t5":
        writer.add_remove_extra_whitespaces(True)
    if vocabulary.charsmap:
        writer.add_precompiled_charsmap(vocabulary.charsmap)
    _write_special(writer, tokenizer, rows=len(vocabulary.tokens))
    if tokenizer.has_chat_template:
        _write_template(writer, tokenizer.hf.chat_template)


def left_out(tokenizer: Tokenizer, *, rows: int) -> tuple[str, ...]:
    """The tokens that the model has no row for."""
    return tuple(sorted(text for text, index in tokenizer.hf.get_vocab().items() if index >= rows))


def _write_special(writer: gguf.GGUFWriter, tokenizer: Tokenizer, *, rows: int) -> None:
    begin, end, stops = tokenizer.bos_token_id, tokenizer.eos_token_id, sorted(tokenizer.stop_ids)
    if end is None and not stops:
        raise unlike("it has no end token", cure="give it one, or export to hf instead")
    end = stops[0] if end is None else end
    others = [index for index in stops if index != end]
    if len(others) > 1:
        cure = "use a chat template whose turns end with one token"
        raise unlike(f"{len(stops)} tokens end an answer, and GGUF has two places for them", cure=cure)
    around = tokenizer.prefix_ids, tokenizer.suffix_ids
    if around[0] not in ((), (begin,)) or around[1] not in ((), (end,)):
        raise unlike("it puts more around a text than a begin and an end token")
    writer.add_eos_token_id(end)
    if begin is not None:
        writer.add_bos_token_id(begin)
    if others:
        writer.add_eot_token_id(others[0])
    if tokenizer.hf.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.hf.unk_token_id)
    if tokenizer.hf.pad_token_id is not None and tokenizer.hf.pad_token_id < rows:
        writer.add_pad_token_id(tokenizer.hf.pad_token_id)
    writer.add_add_bos_token(bool(around[0]))
    writer.add_add_eos_token(bool(around[1]))


def _write_template(writer: gguf.GGUFWriter, template: str | Mapping[str, str]) -> None:
    if isinstance(template, str):
        writer.add_chat_template(template)
        return
    first = "default" if "default" in template else next(iter(template))
    named = [{"name": "default" if name == first else name, "template": text} for name, text in template.items()]
    writer.add_chat_template(named)
