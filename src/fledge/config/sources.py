"""A source of rows guessed from its path alone, as a start that a person can correct."""

from fledge.config.paths import DATA_SUFFIXES

_BY_SUFFIX = {".txt": "text", ".md": "text", ".csv": "completion", ".tsv": "completion", ".xlsx": "completion"}
_BY_WORD = {
    "alpaca": "alpaca",
    "dolly": "alpaca",
    "instruct": "alpaca",
    "chat": "chat",
    "conversation": "chat",
    "messages": "chat",
    "sharegpt": "chat",
    "wiki": "text",
    "book": "text",
}


def guessed_source(path: str) -> dict[str, str]:
    """`path` with the format that its name makes likely: a table is completion, a text is text, others chat."""
    return {"path": path, "format": guessed_format(path)}


def guessed_format(path: str) -> str:
    """The format that the name of a file or data set makes likely."""
    name = path.lower().removesuffix(".gz")
    for suffix, kind in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return kind
    return next((kind for word, kind in _BY_WORD.items() if word in name), "chat")


def looks_like_data(text: str) -> bool:
    """Whether a name ends as a data file's does."""
    return text.lower().removesuffix(".gz").endswith(DATA_SUFFIXES)
