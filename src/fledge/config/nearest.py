"""The nearest known name to one that is not known."""

import difflib
from collections.abc import Iterable


def folded(name: str) -> str:
    """A name without capitals, hyphens and spaces: the form in which two spellings of one name are the same."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` most likely means, or None where nothing is near."""
    names = list(known)
    by_folded = {folded(candidate): candidate for candidate in names}
    matches = difflib.get_close_matches(folded(name), list(by_folded), n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None
