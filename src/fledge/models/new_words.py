"""Adds the recipe's tokens to a tokenizer: special ones, and ordinary ones that stay in decoded text."""

from collections.abc import Sequence

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from fledge.errors import ModelError

_BESIDE = "a"
"""Stands before and after a token where it is tried out."""


def add_words(
    hf: PreTrainedTokenizerBase, *, special: Sequence[str], ordinary: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Add tokens to a tokenizer, in this order. Returns the ids that are new, and what a person should know.

    A token that is a piece of the vocabulary already keeps its id, and from now on text is always cut at it. A token
    that was added before stays as it is. Raises ModelError where the tokenizer would not read or write a token.
    """
    vocabulary, known = hf.get_vocab(), _added(hf)
    fresh = [token for token in (*special, *ordinary) if token not in vocabulary]
    pieces = [token for token in (*special, *ordinary) if token in vocabulary and token not in known]
    if to_add := [token for token in special if token not in known]:
        hf.add_special_tokens({"extra_special_tokens": to_add}, replace_extra_special_tokens=False)
    hf.add_tokens([AddedToken(token, special=False, normalized=False) for token in ordinary if token not in known])
    _check_kinds(hf, special=special, ordinary=ordinary)
    notes = []
    if pieces:
        what = "the vocabulary has it already, so it keeps its trained embedding, and text is always cut at it"
        notes.append(f"new tokens: {_listed(pieces)}: {what}")
    if there := [token for token in ordinary if token in known]:
        notes.append(f"data.new_tokens: {_listed(there)}: the tokenizer has it already")
    return tuple(hf.convert_tokens_to_ids(fresh)), tuple(notes)


def _added(hf: PreTrainedTokenizerBase) -> dict[str, bool]:
    """Tokens that the tokenizer cuts out of text before anything else, and whether each is special."""
    return {token.content: token.special for token in hf.backend_tokenizer.get_added_tokens_decoder().values()}


def _check_kinds(hf: PreTrainedTokenizerBase, *, special: Sequence[str], ordinary: Sequence[str]) -> None:
    """Raises ModelError where a token is of the other kind, is never read, or would be written as another text."""
    known = _added(hf)
    for key, tokens, is_special in (
        ("data.new_special_tokens", special, True),
        ("data.new_tokens", ordinary, False),
    ):
        for token in tokens:
            if not is_special and known[token]:
                what = f"{token!r} is a special token of this base, which leaves decoded text"
                raise ModelError(what, where=key, cure=f"take {token!r} out of {key}, or choose another text")
            _try_out(hf, token, key=key, is_special=is_special)


def _try_out(hf: PreTrainedTokenizerBase, token: str, *, key: str, is_special: bool) -> None:
    backend, index = hf.backend_tokenizer, hf.convert_tokens_to_ids(token)
    ids = backend.encode(f"{_BESIDE}{token}{_BESIDE}", add_special_tokens=False).ids
    if index not in ids:
        what = f"this tokenizer never reads {token!r}: other tokens take its place"
        raise ModelError(what, where=key, cure=f"take {token!r} out of {key}, or choose another text")
    if not is_special and token not in (written := backend.decode(ids, skip_special_tokens=True)):
        written = written.removeprefix(_BESIDE).removesuffix(_BESIDE)
        what = f"this tokenizer writes {token!r} as {written!r}, so answers would not show it"
        cure = f"choose another text for {token!r}: ASCII letters, digits and signs, without spaces around them"
        raise ModelError(what, where=key, cure=cure)


def _listed(tokens: Sequence[str]) -> str:
    shown = ", ".join(repr(token) for token in tokens[:5])
    return shown if len(tokens) <= 5 else f"{shown} and {len(tokens) - 5} more"
