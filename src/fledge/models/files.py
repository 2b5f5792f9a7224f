"""The weight files of a base: where they lie, and what they hold by content."""

import hashlib
import json
from pathlib import Path

from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, extract_commit_hash

from fledge.cache import cache_root, file_sha256, noted
from fledge.errors import ModelError
from fledge.models.tensors import Stored, stored_in


def weight_files(source: str, *, revision: str) -> list[Path]:
    """The safetensors files of a local folder or a hub id, which is downloaded. Raises ModelError without any."""
    whole = _file(source, SAFE_WEIGHTS_NAME, revision)
    if whole is not None:
        return [whole]
    index = _file(source, SAFE_WEIGHTS_INDEX_NAME, revision)
    if index is None:
        cure = "give a base with .safetensors files; pickled weights are refused"
        raise ModelError("there are no safetensors files", where=source, cure=cure)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        strange = [name for name in names if Path(name).name != name]  # a name is no way out of the folder
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        what = f"the index of the weight files cannot be read: {error}"
        raise ModelError(what, where=str(index), cure="fetch the base again, all of its files") from error
    if strange:
        what = f"the index of the weight files names {strange[0]!r}, which is no file's name"
        raise ModelError(what, where=str(index), cure="fetch the base again, all of its files")
    found = {name: _file(source, name, revision) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        cure = "fetch the base again, all of its files"
        raise ModelError(f"the base lacks {', '.join(missing[:3])}", where=source, cure=cure)
    return [path for path in found.values() if path is not None]


def fetched_files(source: str, *, revision: str) -> tuple[str | None, list[Path]]:
    """The commit that the revision of a hub id stands for, and the weight files of that commit.

    The commit is None for a local folder. Raises ModelError without any files, OSError where the hub is out of reach.
    """
    described = _file(source, CONFIG_NAME, revision)
    commit = None if described is None else extract_commit_hash(str(described), None)
    return commit, weight_files(source, revision=commit or revision)


def stored_tensors(files: list[Path]) -> dict[str, Stored]:
    """Every tensor of these files by its name in them."""
    return {name: stored for path in files for name, stored in stored_in(path).items()}


def content_of(files: list[Path]) -> str:
    """sha256 over the sha256 of each file. What a file of this size and time holds is computed once and noted."""
    return hashlib.sha256("".join(_noted_sha256(path) for path in files).encode()).hexdigest()


def _noted_sha256(path: Path) -> str:
    real = path.resolve()
    state = real.stat()
    name = hashlib.sha256(f"{real}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}".encode()).hexdigest()
    note = cache_root("digests") / f"{name}.json"
    found = noted(note, lambda: {"file": path.name, "sha256": file_sha256(real)}).get("sha256")
    return found if isinstance(found, str) and len(found) == 64 else file_sha256(real)


def _file(source: str, name: str, revision: str) -> Path | None:
    found = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=True,
    )
    return None if found is None else Path(found)
