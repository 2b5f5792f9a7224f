"""How a tokenizer cuts a text before its merges, and the name that llama.cpp has for the same.

llama.cpp computes each of these by code of its own under a name (src/llama-vocab.cpp; the names of the published
tokenizers are in convert_hf_to_gguf_update.py). What is not one of them exactly is refused: a file whose text is cut in
another way answers worse, and nothing says so.
"""

import json
from typing import Any

from fledge.errors import ModelError

SPACE = "\u2581"
"""What SentencePiece writes for a space."""
_BYTES_ALONE = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_PUNCTUATION = "\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _by_words(digits: str) -> dict[str, Any]:
    """The pattern of Llama 3, of OpenAI's cl100k and of Qwen2, which differ in how many digits stay together."""
    words = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    return _split(rf"{words}|\s*[\r\n]+|\s+(?!\S)|\s+")


def _metaspace(scheme: str, *, split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_KNOWN: dict[str, dict[str, Any]] = {
    "gpt-2": _GPT2,
    "falcon": _sequence(
        {"type": "Punctuation", "behavior": "Contiguous"},
        _GPT2,
        {"type": "Digits", "individual_digits": False},
        _split("[0-9][0-9][0-9]"),
    ),
    "bloom": _sequence(_split(rf" ?[^(\s|[.,!?{_PUNCTUATION}])]+"), _BYTES_ALONE),
    "qwen2": _sequence(_by_words(""), _BYTES_ALONE),
    "llama-bpe": _sequence(_by_words("{1,3}"), _BYTES_ALONE),
    "dbrx": _sequence(_by_words("{1,3}"), _BYTES_ALONE),
    "starcoder": _sequence({"type": "Digits", "individual_digits": True}, _GPT2),
}
_IGNORES_MERGES = frozenset({"llama-bpe"})
"""Where llama.cpp takes a whole word that is a token before it looks at merges."""

SPACES_REPLACED = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPENDED = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, SPACES_REPLACED]}
_AT_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def unlike(what: str, *, cure: str = "export to hf instead") -> ModelError:
    """The error for a tokenizer that llama.cpp would not follow."""
    return ModelError(what, where="the tokenizer", cure=cure)


def name_of_splitting(rules: dict[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer cuts a text.

    `rules` is a tokenizer.json. A normaliser may be NFC, which llama.cpp leaves out: text that is composed already, as
    nearly all text is, does not change by it. Raises ModelError where llama.cpp has no such pre-tokenizer.
    """
    found = _bare(rules["pre_tokenizer"])
    ignores_merges = bool(rules["model"].get("ignore_merges"))
    alike = (name for name, known in _KNOWN.items() if known == found and ignores_merges == (name in _IGNORES_MERGES))
    if (name := next(alike, None)) is None:
        raise _unknown("a pre-tokenizer", rules["pre_tokenizer"])
    if rules["normalizer"] not in (None, {"type": "NFC"}):
        raise _unknown("a normaliser", rules["normalizer"])
    return name


def puts_space_first(rules: dict[str, Any]) -> bool:
    """Whether a tokenizer of SentencePiece's kind begins a text with a space.

    Raises ModelError where it treats spaces in a way that llama.cpp has not.
    """
    normalizer, splitting = rules["normalizer"], _bare(rules["pre_tokenizer"])
    if normalizer == PREPENDED and splitting is None:
        return True
    if normalizer == SPACES_REPLACED and splitting in (None, _AT_SPACES):
        return False
    if normalizer is None and splitting in [_metaspace(scheme, split=False) for scheme in ("first", "always")]:
        return True
    if normalizer is None and splitting == _metaspace("never", split=False):
        return False
    raise _unknown("a treatment of spaces", [normalizer, rules["pre_tokenizer"]])


def is_metaspace(rules: dict[str, Any]) -> bool:
    """Whether it is of SentencePiece's kind, and the library's Metaspace puts its spaces."""
    return rules["normalizer"] is None and (_bare(rules["pre_tokenizer"]) or {}).get("type") == "Metaspace"


def is_unigram_of_t5(rules: dict[str, Any]) -> bool:
    """Whether a unigram tokenizer cuts at spaces, drops superfluous ones and begins each word with one, as T5's."""
    return _bare(rules["pre_tokenizer"]) == _sequence({"type": "WhitespaceSplit"}, _metaspace("always", split=True))


def remarks_on(rules: dict[str, Any], *, puts_first: bool | None = None) -> tuple[str, ...]:
    """Where llama.cpp cuts a text otherwise though it knows the tokenizer, for which the format has no words.

    `puts_first` is what the file says of a space before a text, where that is not what the rules say.
    """
    found = []
    if rules["normalizer"] == {"type": "NFC"}:
        found.append("llama.cpp does not compose letters and their marks, the tokenizer does (NFC)")
    if (_bare(rules["pre_tokenizer"]) or {}).get("type") == "Metaspace" and puts_space_first(rules):
        if puts_first is False:
            found.append(
                "llama.cpp puts no space before a text; the tokenizer does before one that begins with neither a space "
                "nor a special token"
            )
        else:
            found.append(
                "llama.cpp puts a space before each text after a special token, also before one that has it already"
            )
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in rules["added_tokens"]):
        found.append("llama.cpp does not take away spaces beside added tokens, the tokenizer does beside some")
    return tuple(found)


def _bare(step: Any) -> Any:
    """A step without what changes no token, and with what older files leave out."""
    if step is None:
        return None
    if step["type"] == "Sequence":
        steps = [_bare(inner) for inner in step["pretokenizers"]]
        return steps[0] if len(steps) == 1 else _sequence(*steps)
    bare = {name: value for name, value in step.items() if name not in ("trim_offsets", "str_rep")}
    if bare["type"] == "ByteLevel":
        bare.setdefault("use_regex", True)
    if bare["type"] == "Metaspace":
        bare.pop("add_prefix_space", None)
        bare.setdefault("split", True)
    return bare


def _unknown(what: str, found: Any) -> ModelError:
    known = ", ".join(sorted(_KNOWN))
    cure = f"known are {known}, SentencePiece's BPE as of Llama and Gemma, and T5's unigrams; export to hf instead"
    return unlike(f"it has {what} that llama.cpp does not know: {_short(found)}", cure=cure)


def _short(found: Any) -> str:
    text = json.dumps(found, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
