"""From a source's path to the files that it means."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fledge.config.data import SourceConfig
from fledge.errors import DataError

Kind = Literal["json", "jsonl", "csv", "txt", "parquet"]

_KINDS: dict[str, Kind] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".txt": "txt",
    ".md": "txt",
    ".parquet": "parquet",
}
_GLOB_CHARACTERS = frozenset("*?[")
SUPPORTED = "json, jsonl, csv, parquet, txt, md, and gz of these (parquet excepted)"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source. `name` is how people are told of it: the shortest path that is its own in the source."""

    path: Path
    name: str
    kind: Kind
    is_gzip: bool

    @property
    def counts_lines(self) -> bool:
        """True where rows are numbered by the line they start at."""
        return self.kind in ("jsonl", "csv")


def is_local(path: str) -> bool:
    """True for a file, folder or glob; False for a hub id. Recipes are loaded with local paths made absolute."""
    return Path(path).is_absolute() or bool(_GLOB_CHARACTERS & set(path)) or Path(path).exists()


def find_files(source: SourceConfig) -> tuple[SourceFile, ...]:
    """The files that a local source means, sorted by path.

    Raises DataError where there is none, where a suffix is not supported, or where a folder mixes kinds.
    """
    path = Path(source.path)
    if path.is_file():
        paths = [path]
    elif path.is_dir():
        paths = _files_in(path)
    elif _GLOB_CHARACTERS & set(source.path):
        paths = _matching(path)
        if not paths:
            raise DataError("no file matches this glob", where=source.path, cure=_nearest_cure(path.parent))
    else:
        raise DataError("no such file or folder", where=source.path, cure=_nearest_cure(path))
    names = _short_names(paths)
    return tuple(_source_file(path, name) for path, name in zip(paths, names, strict=True))


def _matching(pattern: Path) -> list[Path]:
    """Files that match a glob, sorted; `**` goes into folders."""
    fixed = Path(pattern.anchor)
    rest = list(pattern.relative_to(fixed).parts)
    while rest and not _GLOB_CHARACTERS & set(rest[0]):
        fixed /= rest.pop(0)
    return sorted(found for found in fixed.glob(str(Path(*rest))) if found.is_file())


def _source_file(path: Path, name: str) -> SourceFile:
    kind, is_gzip = _kind_of(path)
    if kind is None or (kind == "parquet" and is_gzip):
        raise DataError(
            f"the suffix {''.join(path.suffixes[-2:]) or '(none)'} is not one that is read",
            where=str(path),
            cure=f"supported: {SUPPORTED}",
        )
    return SourceFile(path=path, name=name, kind=kind, is_gzip=is_gzip)


def _kind_of(path: Path) -> tuple[Kind | None, bool]:
    name = path.name.lower()
    is_gzip = name.endswith(".gz")
    return _KINDS.get(Path(name.removesuffix(".gz")).suffix), is_gzip


def _files_in(folder: Path) -> list[Path]:
    """All supported files below `folder`; a README beside data files is not data."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    by_kind: dict[str, list[Path]] = {}
    for path in found:
        kind, _ = _kind_of(path)
        if kind is not None:
            by_kind.setdefault("md" if path.suffix.lower() == ".md" else kind, []).append(path)
    if len(by_kind) > 1:
        by_kind.pop("md", None)
    if not by_kind:
        raise DataError("the folder holds no file that can be read", where=str(folder), cure=f"supported: {SUPPORTED}")
    if len(by_kind) > 1:
        counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in sorted(by_kind.items()))
        example = folder / f"*.{min(by_kind)}"
        cure = f"several kinds often hold the same rows twice; name one, such as {example}"
        raise DataError(f"the folder holds files of several kinds: {counts}", where=str(folder), cure=cure)
    return next(iter(by_kind.values()))


def _short_names(paths: list[Path]) -> list[str]:
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    parts = [path.parts for path in paths]
    shared = 0
    while len({part[shared] for part in parts}) == 1:
        shared += 1
    return [str(Path(*part[shared:])) for part in parts]


def _nearest_cure(path: Path) -> str:
    folder = path
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    present = sorted(child.name for child in folder.iterdir() if not child.name.startswith("."))
    wanted = path.relative_to(folder).parts[0] if path != folder else ""
    near = difflib.get_close_matches(wanted, present, n=1, cutoff=0.5)
    if near:
        return f"did you mean {folder / near[0]}?"
    return f"{folder} is the nearest folder that exists; relative paths start from the recipe's folder"
