"""The nearest known name to one that is not known."""

import difflib
from collections.abc import Iterable

_SHORT, _LONG = 4, 8
"""Letters of a word in which no letter stands for another one (`use_lora` is no slip for `use_dora`), and of one with
two slips."""


def folded(name: str) -> str:
    """A name without capitals, hyphens and spaces: the form in which two spellings of one name are the same."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` most likely means, or None where nothing is near.

    It is generous: for what a person decides, such as files and columns, and for values. An option is a `typo_of`.
    """
    names = list(known)
    by_folded = {folded(candidate): candidate for candidate in names}
    matches = difflib.get_close_matches(folded(name), list(by_folded), n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def typo_of(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` is but for a slip or two of the hand, or None.

    Each word may have one slip, a long one two: a letter too many or too few, two letters changed over, or, where the
    word is not short, another letter. Names of other meaning that look alike are not taken for one another.
    """
    found = [
        (slips, candidate) for candidate in known if (slips := _slips(folded(name), folded(candidate))) is not None
    ]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _slips(name: str, other: str) -> int | None:
    """How many slips make one name of the other; None where they are too many to be slips."""
    words, others = name.split("_"), other.split("_")
    if len(words) != len(others):
        words, others = [name.replace("_", "")], [other.replace("_", "")]
        if words == others:
            return 0
        # words run together with a slip besides are one word, however long
        return _slips_in_word(words[0], others[0], most=1) if min(map(len, words + others)) >= _LONG else None
    counts = [_slips_in_word(*pair, most=_most(pair)) for pair in zip(words, others, strict=True)]
    told = [count for count in counts if count is not None]
    return sum(told) if len(told) == len(counts) and sum(told) <= 2 else None


def _most(pair: tuple[str, str]) -> int:
    shorter = min(map(len, pair))
    return 0 if shorter < 3 else 2 if shorter >= _LONG else 1


def _slips_in_word(word: str, other: str, *, most: int) -> int | None:
    if word == other:
        return 0
    if not word or not other:
        return None
    dear = most + 1 if min(len(word), len(other)) <= _SHORT else 1
    count = _distance(word, other, substitution=dear)
    # the first letter is rarely the wrong one
    is_near = word[0] == other[0] or (count == 1 and min(len(word), len(other)) > _SHORT) or word[:2] == other[1::-1]
    return count if count <= most and is_near else None


def _distance(one: str, other: str, *, substitution: int) -> int:
    """Edits between two words, two neighbours changed over being one (optimal string alignment)."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, against in enumerate(other, 1):
            same = 0 if letter == against else substitution
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + same)
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == against:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
