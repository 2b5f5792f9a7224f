"""Tokenised data by content: an entry is whole or absent, built once however many ask, checked before it is used."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fledge.errors import DataError

_SUMS = "sums.json"
_BLOCK = 1 << 20


def cache_root() -> Path:
    """$XDG_CACHE_HOME/fledge/data, or ~/.cache/fledge/data."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fledge" / "data"


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
    """The folder of entry `key`, and whether it was there; `build` fills an empty folder where it was not.

    One process builds, others wait for it. An entry whose files are not what they were is built anew.
    Raises DataError where the cache cannot be written; an OSError out of `build` is taken for that, so what `build`
    cannot read it must tell of itself.
    """
    root = cache_root()
    entry = root / key
    if _is_whole(entry):
        return entry, True
    with _writing(root), _lock(root / f"{key}.lock"):
        if _is_whole(entry):
            return entry, True
        for leftover in root.glob(f".{key}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = root / f".{key}.{os.getpid()}"
        temporary.mkdir()
        try:
            build(temporary)
            (temporary / _SUMS).write_text(json.dumps(_sums(temporary)), encoding="utf-8")
            if entry.exists():
                entry.rename(root / f".{key}.{os.getpid()}.broken")
            temporary.rename(entry)
        finally:
            for leftover in root.glob(f".{key}.*"):
                shutil.rmtree(leftover, ignore_errors=True)
    return entry, False


def content_digest(entry: Path, names: Sequence[str]) -> str:
    """Digest of some files of an entry: it stays the same when new code makes the same content."""
    sums = json.loads((entry / _SUMS).read_text(encoding="utf-8"))
    return hashlib.sha256("".join(sums[name] for name in names).encode()).hexdigest()


def _is_whole(entry: Path) -> bool:
    try:
        expected = json.loads((entry / _SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(expected, dict) and bool(expected) and expected == _sums(entry)


def _sums(folder: Path) -> dict[str, str]:
    """Digest of each file's content by name."""
    return {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.name != _SUMS}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        cure = "free some space, or set XDG_CACHE_HOME to a folder that can be written"
        raise DataError(
            f"the cache cannot be written: {error.strerror or error}", where=str(root), cure=cure
        ) from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel lets go when the process dies, however it dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
