"""Scores for a BPE vocabulary of SentencePiece's kind, so that llama.cpp joins pieces in the order of the merges.

A tokenizer.json has a list of pairs; llama.cpp has a score for each token, joins whatever two neighbours make a token,
the one with the highest score first, and of equals the leftmost (src/llama-vocab.cpp, llm_tokenizer_spm). Both do the
same where all pairs that make one token stand together in the list, and every pair that makes a token is in it: so it
is in what was converted from SentencePiece, and seldom in what was trained otherwise.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from fledge.errors import ModelError
from fledge.exporting.gguf.splitting import unlike

Pair = tuple[str, str]
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
UNREACHED = -1e6
"""The score of what no merge makes; below that of any merge."""


def scores_of(vocabulary: Mapping[str, int], merges: Sequence[Pair], *, apart: frozenset[str]) -> dict[str, float]:
    """A score for each token that a merge makes, the first 0 and each later one 1 less.

    `apart` are added tokens, which are cut out of the text before. Raises ModelError where llama.cpp would join in
    another order, or pieces that the tokenizer leaves apart, or has no bytes to fall back to.
    """
    _check_bytes(vocabulary)
    in_order = [token for token, _ in itertools.groupby(left + right for left, right in merges)]
    if twice := [token for token, times in Counter(in_order).items() if times > 1 and token not in apart]:
        raise _unlike(f"the merges that make {twice[0]!r} stand in several places")
    known, whole = set(merges), {*BYTES, *apart}
    for token in vocabulary:
        for cut in range(1, len(token) if token not in whole else 1):
            pair = token[:cut], token[cut:]
            if pair not in known and pair[0] in vocabulary and pair[1] in vocabulary and not whole & {*pair}:
                raise _unlike(f"{pair[0]!r} and {pair[1]!r} would be joined, which no merge does")
    return {token: -float(place) for place, token in enumerate(in_order)}


def _check_bytes(vocabulary: Mapping[str, int]) -> None:
    """A byte that is a letter of its own may be there as that: Gemma's tab is."""
    is_there = (token in vocabulary or (byte < 128 and chr(byte) in vocabulary) for byte, token in enumerate(BYTES))
    if missing := sum(not one for one in is_there):
        raise _unlike(f"{missing} of the 256 byte tokens are missing")


def _unlike(what: str) -> ModelError:
    cure = "only vocabularies that come from SentencePiece have this form; export to hf instead"
    return unlike(f"llama.cpp would cut text otherwise: {what}", cure=cure)
