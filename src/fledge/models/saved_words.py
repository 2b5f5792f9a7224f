"""Saves a tokenizer so that whoever loads it reads text as in the training, and proves that it does."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from fledge.errors import ModelError
from fledge.models.load_tokenizer import saved_tokenizer
from fledge.models.spelling import with_older_merges
from fledge.models.tokenizer import Tokenizer

RULES, CONFIG = "tokenizer.json", "tokenizer_config.json"
AS_IT_IS = "PreTrainedTokenizerFast"
"""The library's class that takes a tokenizer.json as it is. Others make one anew out of its words and of options that
are not all saved: LlamaTokenizer without its `legacy` puts spaces elsewhere."""
_DROPPED = ("auto_map", "backend", "from_slow", "is_local", "legacy", "local_files_only", "add_prefix_space")
"""Keys of tokenizer_config.json that name code, make the library build the rules anew, or say where files once lay."""
_CURE = "nothing was trained; use another base, or report this with the base's name"
_AROUND = 8
"""Ids that an error shows before and after the first one that differs."""

_MISTAKES = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What code of a tokenizer's own raises where it does not read what it has written."""

Sample = tuple[str, Sequence[int]]
"""A text, and the ids that the training has for it."""


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json with the very rules that read text now, tokenizer_config.json and the chat template.

    A tokenizer with code of its own keeps its class, and the code is written beside it, where that reads text alike
    when it is loaded again; where not, the rules alone are written.
    """
    tokenizer.hf.save_pretrained(folder)
    (folder / RULES).write_text(tokenizer.rules, encoding="utf-8")
    if not (tokenizer.has_own_code and _keeps_code(tokenizer, folder)):
        _load_as_it_is(tokenizer, folder / CONFIG)


def save_for_others(tokenizer: Tokenizer, folder: Path) -> None:
    """The same for people who have other versions of the libraries: merges in the form that all of them read."""
    save_tokenizer(tokenizer, folder)
    path = folder / RULES
    rules = with_older_merges(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(rules, indent=2, ensure_ascii=False), encoding="utf-8")


def _keeps_code(tokenizer: Tokenizer, folder: Path) -> bool:
    try:
        return saved_tokenizer(folder, trust_remote_code=True).digest == tokenizer.digest
    except _MISTAKES:
        return False


def _load_as_it_is(tokenizer: Tokenizer, path: Path) -> None:
    """Change tokenizer_config.json so that the library, of this version and the one before, takes the rules as they are
    and keeps what the tokenizer's own class had set.
    """
    hf = tokenizer.hf
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if name not in _DROPPED}
    config |= {
        "tokenizer_class": AS_IT_IS,
        "model_input_names": list(hf.model_input_names),
        "padding_side": hf.padding_side,
        "truncation_side": hf.truncation_side,
        "clean_up_tokenization_spaces": bool(hf.clean_up_tokenization_spaces),
    }
    if isinstance(extra := config.pop("extra_special_tokens", None), list) and extra:
        config["additional_special_tokens"] = extra  # the name that older versions know too
    first = json.loads(tokenizer.rules).get("pre_tokenizer") or {}
    if first.get("type") == "ByteLevel":  # older versions set it to what is said here
        config["add_prefix_space"] = first["add_prefix_space"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def prove_saved(tokenizer: Tokenizer, samples: Sequence[Sample], *, base: str) -> None:
    """Save the tokenizer, load it again, and compare what both make of the samples and of every special token.

    Raises ModelError with the text and its ids where they differ, and where code of the tokenizer's own gives other ids
    than its rules do, whose characters would not be known.
    """
    if tokenizer.has_own_code and (found := _reads_apart(tokenizer.hf, samples)):
        what = "the tokenizer's own code gives other ids than its tokenizer.json, without saying for which characters"
        raise ModelError(f"{what}: {found}", where=base, cure=_CURE)
    with tempfile.TemporaryDirectory(prefix="fledge-tokenizer-") as name:
        save_tokenizer(tokenizer, Path(name))
        try:
            again = saved_tokenizer(Path(name), trust_remote_code=tokenizer.has_own_code)
        except Exception as error:  # whatever the library or code of the tokenizer's own raises
            what = f"the tokenizer cannot be loaded again once it is saved: {error}"
            raise ModelError(what, where=base, cure=_CURE) from error
        found = difference(tokenizer, again, samples=samples)
    if found is not None:
        raise ModelError(
            f"the tokenizer is another one once it is saved and loaded again: {found}", where=base, cure=_CURE
        )


def difference(tokenizer: Tokenizer, again: Tokenizer, *, samples: Sequence[Sample]) -> str | None:
    """How `again`, as plain transformers uses it, reads text otherwise than `tokenizer` in the training; None where it
    does not.
    """
    if again.special_tokens != tokenizer.special_tokens:
        apart = sorted({*again.special_tokens.items()} ^ {*tokenizer.special_tokens.items()})
        return f"its special tokens differ, the first is {apart[0][0]!r}"
    if (again.prefix_ids, again.suffix_ids) != (tokenizer.prefix_ids, tokenizer.suffix_ids):
        return f"it puts {again.prefix_ids} before and {again.suffix_ids} after a text, in the training " + (
            f"{tokenizer.prefix_ids} and {tokenizer.suffix_ids}"
        )
    if (found := _reads_apart(again.hf, [*samples, *marked(tokenizer)])) is not None:
        return found
    if again.digest != tokenizer.digest:
        return "its rules, its chat template or its special tokens differ"
    return None


def marked(tokenizer: Tokenizer) -> list[Sample]:
    """A text for each special or added token, which stands in it twice, with its ids."""
    texts = [f"a{token} b{token}c" for token in tokenizer.special_tokens]
    return [(text, one.ids) for text, one in zip(texts, tokenizer.encode_batch(texts), strict=True)]


def _reads_apart(hf: PreTrainedTokenizerBase, samples: Sequence[Sample]) -> str | None:
    for batch in _batches(samples):
        found = hf([text for text, _ in batch], add_special_tokens=False, verbose=False)["input_ids"]
        for (text, ids), others in zip(batch, found, strict=True):
            if list(ids) != list(others):
                return said(text, ids=ids, others=others)
    return None


def said(text: str, *, ids: Sequence[int], others: Sequence[int]) -> str:
    """For people: a text that is read in two ways, and the ids where they part."""
    pairs = enumerate(zip(ids, others, strict=False))
    place = next((place for place, (one, other) in pairs if one != other), min(len(ids), len(others)))
    start, stop = max(0, place - _AROUND), place + _AROUND
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    return (
        f"{shown!r} is split into other tokens: its list of token ids has from id {start + 1} on "
        f"{list(ids[start:stop])} in the training, but {list(others[start:stop])} now"
    )


def _batches(samples: Sequence[Sample], size: int = 256) -> Iterator[list[Sample]]:
    left = iter(samples)
    while batch := list(islice(left, size)):
        yield batch
