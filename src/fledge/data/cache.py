"""Where tokenised data are kept, and what an entry is named by."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fledge import cache as entries
from fledge.errors import DataError, RunError


def cache_root() -> Path:
    """The folder of caches of `fledge.cache`, among it the data."""
    return entries.cache_root("data")


@cache
def code_version() -> str:
    """Digest of the data room's own source and of the libraries that decide what it makes."""
    digest = hashlib.sha256()
    room = Path(__file__).parent
    for path in sorted(room.rglob("*.py")):
        digest.update(str(path.relative_to(room)).encode() + b"\0" + path.read_bytes() + b"\0")
    for library in ("tokenizers", "transformers", "jinja2", "datasets"):
        digest.update(f"{library} {version(library)}\0".encode())
    return digest.hexdigest()


def key_of(parts: Mapping[str, Any]) -> str:
    """The name of the entry that `parts`, a JSON object of all that decides its content, stand for."""
    text = json.dumps({**parts, "code": code_version()}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fetch(key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder of entry `key`, and whether it was there: fledge.cache.fetch among the data.

    Raises DataError where the cache cannot be written, as for anything else that keeps rows from being prepared.
    """
    try:
        return entries.fetch(cache_root(), key, build=build)
    except RunError as error:
        problem = error.problems[0]
        raise DataError(problem.what, where=problem.where, cure=problem.cure) from error
