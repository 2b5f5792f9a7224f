"""What a library says of an error, in words that fit a recipe: no Python argument, and a cure that names an option."""

import re

_LONGEST = 320
# Sentences of transformers, datasets and huggingface_hub that name a Python argument, in the recipe's words.
_IN_OTHER_WORDS = (
    (r"[^.\n]*trust_remote_code=True[^.\n]*\.?", ""),
    (r",? (either |or )?by passing `?token=<your_token>`?", ""),
    (r"either by logging in with", "by logging in with"),
    (r"pass a token having permission to this repo", "have a token with permission for it"),
)
# A keyword argument or a call, as Python is written (not the query of an address), and what would change versions.
_PYTHON = re.compile(
    r"(?<![?&\w/])`?\b[a-z_]\w*=[\w<\"'\[{(]|\b(?:from_pretrained|load_dataset|from_config|\w+\.\w+)\(|\bpip install\b"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"])|\n+")
_CURES = (
    (
        r"trust_remote_code|custom code",
        "read the code that comes with it, and if you trust it, set model.trust_remote_code: true",
    ),
    (
        r"PermissionError at|Permission denied|Read-only file system",
        "set HF_HOME to a folder that can be written, where what is fetched from the hub is kept",
    ),
    (
        r"gated|401|403|restricted|permission to this repo",
        "ask for access on the hub, and log in with `hf auth login` or set HF_TOKEN",
    ),
    (
        r"offline|couldn't connect|connection|timed? ?out|resolve host|name resolution|unreachable|HF_HUB_OFFLINE",
        "check the connection to the hub (HF_HUB_OFFLINE must not be set), or name a local folder",
    ),
    (r"not a valid git identifier|revision", "set model.revision to a branch, tag or commit that is there"),
    (
        r"does not recognize this architecture|model type|Unrecognized (model|configuration)",
        "use a base of a kind that this version of transformers knows",
    ),
    (r"not a valid model identifier|not a local folder|Repository Not Found|404", "check model.name_or_path"),
    (r"does not appear to have a file|no file named", "fetch the base again, all of its files"),
)


def said(error: BaseException) -> str:
    """What `error` says, in one line, without sentences that tell a person to pass a Python argument."""
    text = str(error).strip()
    for pattern, words in _IN_OTHER_WORDS:
        text = re.sub(pattern, words, text)
    sentences = [part.strip() for part in _SENTENCE.split(text)]
    kept = " ".join(part for part in sentences if part and not _PYTHON.search(part)) or type(error).__name__
    return kept if len(kept) <= _LONGEST else f"{kept[: _LONGEST - 3]}..."


def cure_of(error: BaseException, *, otherwise: str = "") -> str:
    """What a person can do about a library's error, by its words; `otherwise` where they are not known."""
    text = str(error)
    return next((cure for pattern, cure in _CURES if re.search(pattern, text, re.IGNORECASE)), otherwise)
