"""What a GGUF file says of its tokenizer, held against the run's: words, merges, special tokens, chat template."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from fledge.errors import ProofError
from fledge.exporting.outside import Reading
from fledge.exporting.reading import Lesson, check_template
from fledge.models.tokenizer import Tokenizer

_CURE = "nothing was written; report this with the base's name"
_TEMPLATE = gguf.Keys.Tokenizer.CHAT_TEMPLATE


@dataclass(frozen=True, slots=True)
class Words:
    """The file's metadata, as far as text is concerned."""

    tokens: tuple[str, ...]
    merges: tuple[str, ...]
    special: Mapping[str, int]
    """By gguf's names: bos, eos, eot, unknown, padding."""
    adds_bos: bool
    adds_eos: bool
    templates: Mapping[str, str]
    """By name, the one without being called default."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that llama.cpp ends an answer on."""
        return frozenset(self.special[name] for name in ("eos", "eot") if name in self.special)


def read_words(path: Path) -> Words:
    """The words of a GGUF file."""
    fields = gguf.GGUFReader(path).fields

    def said(key: str, missing: Any) -> Any:
        return fields[key].contents() if key in fields else missing

    ids = {name: said(f"tokenizer.ggml.{name}_token_id", None) for name in ("bos", "eos", "eot", "unknown", "padding")}
    named = {
        key.removeprefix(f"{_TEMPLATE}."): fields[key].contents() for key in fields if key.startswith(f"{_TEMPLATE}.")
    }
    default = {"default": said(_TEMPLATE, None)} if _TEMPLATE in fields else {}
    return Words(
        tokens=tuple(said(gguf.Keys.Tokenizer.LIST, ())),
        merges=tuple(said(gguf.Keys.Tokenizer.MERGES, ())),
        special={name: int(index) for name, index in ids.items() if index is not None},
        adds_bos=bool(said(gguf.Keys.Tokenizer.ADD_BOS, False)),
        adds_eos=bool(said(gguf.Keys.Tokenizer.ADD_EOS, False)),
        templates=default | named,
    )


def check_words(
    tokenizer: Tokenizer, lesson: Lesson, *, words: Words, reading: Reading | None, rows: int
) -> dict[str, Any]:
    """The certificate's `tokenizer`, `template` and `bos`. Of the tokenizer's words, `rows` have an embedding.

    `reading` is what transformers makes of the file's words, which is written down and decides nothing: its reader
    knows not all that llama.cpp does. Raises ProofError where the file says something else than the run's tokenizer.
    """
    vocabulary = {text: index for text, index in tokenizer.hf.get_vocab().items() if index < rows}
    wrong = [text for text, index in vocabulary.items() if words.tokens[index : index + 1] != (text,)]
    if wrong:
        raise ProofError(f"{len(wrong)} words of the file are not the tokenizer's, the first {wrong[0]!r}", cure=_CURE)
    rules = json.loads(tokenizer.hf.backend_tokenizer.to_str())["model"]
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in rules.get("merges", ()))
    if words.merges and words.merges != merges:
        raise ProofError("the merges of the file are not the tokenizer's", cure=_CURE)
    for name, index in (("bos", tokenizer.bos_token_id), ("unknown", tokenizer.hf.unk_token_id)):
        if words.special.get(name) != index:
            raise ProofError(f"the file's {name} token is {words.special.get(name)}, the run's {index}", cure=_CURE)
    alike = None if reading is None else sum(ids == mine for ids, mine in zip(reading.ids, lesson.ids, strict=True))
    figures = {"words": len(vocabulary), "merges": len(words.merges), "has_chat_template": tokenizer.has_chat_template}
    in_transformers = None if alike is None else {"texts": len(lesson.ids), "same": alike}
    return {
        "tokenizer": figures | {"in_transformers": in_transformers},
        "template": check_template(lesson, _reading(tokenizer, words)),
        "bos": _check_bos(tokenizer, lesson, words),
    }


def _reading(tokenizer: Tokenizer, words: Words) -> Reading:
    """The file's template as the run's tokenizer has it: one text, or texts by name."""
    template, own = words.templates.get("default"), tokenizer.hf.chat_template
    if isinstance(own, dict):
        first = "default" if "default" in own else next(iter(own))
        found = {first: template} | {name: text for name, text in words.templates.items() if name != "default"}
        template = json.dumps(found, sort_keys=True)
    return Reading(ids=(), template=template, rendered=None, rendered_ids=())


def _check_bos(tokenizer: Tokenizer, lesson: Lesson, words: Words) -> dict[str, Any]:
    """How many BOS tokens the file's flags amount to in each row, against what the row was trained with."""
    bos = lesson.bos_token_id
    before = sum(token == bos for token in tokenizer.prefix_ids)
    rows = zip(lesson.bos_counts, lesson.texts, strict=False)
    found = [count - before + words.adds_bos if is_bare else count for count, (_, is_bare) in rows]
    if found != list(lesson.bos_counts):
        raise ProofError(f"rows have {found} BOS tokens, in the training {list(lesson.bos_counts)}", cure=_CURE)
    if words.adds_eos != bool(tokenizer.suffix_ids):
        raise ProofError("the file ends texts otherwise than the training", cure=_CURE)
    return {"token_id": bos, "rows": len(found), "expected": list(lesson.bos_counts), "found": found}
