"""What is kept by content: an entry is whole or absent, built once however many ask, checked before it is used."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from fledge.errors import RunError
from fledge.places import cache_home

_SUMS = "sums.json"


def cache_root(kind: str) -> Path:
    """$XDG_CACHE_HOME/fledge/<kind>, or ~/.cache/fledge/<kind>, or where that cannot be written one for this user among
    the temporary files. Raises RunError where there is none of them.
    """
    return cache_home() / "fledge" / kind


def fetch(root: Path, key: str, *, build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder of entry `key`, and whether it was there; `build` fills an empty folder where it was not.

    One process builds, others wait for it; the kernel lets go when it dies, however it dies. An entry whose files are
    not what they were is built anew.
    Raises RunError where the cache cannot be written; an OSError out of `build` is taken for that, so what `build`
    cannot read it must tell of itself.
    """
    entry = root / key
    if _is_whole(entry):
        return entry, True
    with _writing(root), FileLock(root / f"{key}.lock", mode=0o644):
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


def noted(note: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the JSON file `note` says, computed and written where it says nothing; kept in memory alone where the
    folder cannot be written.
    """
    try:
        return dict(json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        value = compute()
    temporary = note.with_name(f".{note.name}.{os.getpid()}")
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value), encoding="utf-8")
        temporary.replace(note)
    return value


def content_digest(entry: Path, names: Sequence[str]) -> str:
    """Digest of some files of an entry: it stays the same when new code makes the same content."""
    sums = json.loads((entry / _SUMS).read_text(encoding="utf-8"))
    return hashlib.sha256("".join(sums[name] for name in names).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_whole(entry: Path) -> bool:
    try:
        expected = json.loads((entry / _SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(expected, dict) and bool(expected) and expected == _sums(entry)


def _sums(folder: Path) -> dict[str, str]:
    """Digest of each file's content by name."""
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != _SUMS}


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, NotImplementedError) as error:  # the second where the disk can lock no files
        cure = "free some space, or set XDG_CACHE_HOME to a folder that can be written"
        raise RunError(
            f"the cache cannot be written: {getattr(error, 'strerror', None) or error}", where=str(root), cure=cure
        ) from error
