"""From a source's path to the files that it means."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from fledge.config.data import SourceConfig
from fledge.config.nearest import nearest_name
from fledge.config.paths import DATA_SUFFIXES
from fledge.errors import DataError

Kind = Literal["json", "jsonl", "csv", "txt", "parquet"]

_OTHER_NAMES = {".ndjson": ".jsonl", ".md": ".txt"}
KINDS: dict[str, Kind] = {
    suffix: cast(Kind, _OTHER_NAMES.get(suffix, suffix).removeprefix(".")) for suffix in DATA_SUFFIXES
}
"""What a file holds, by its suffix."""
SUPPORTED = f"{', '.join(suffix.removeprefix('.') for suffix in DATA_SUFFIXES)}, and gz of these (parquet excepted)"


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


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a source, sorted by path, and those that lie among them and are not read."""

    files: tuple[SourceFile, ...]
    skipped: tuple[tuple[Path, str], ...] = ()
    """Each with the reason."""


def is_local(path: str) -> bool:
    """True for a file, folder or glob; False for a hub id. Recipes are loaded with local paths made absolute."""
    return Path(path).is_absolute()


def find_files(source: SourceConfig) -> Found:
    """The files that a local source means; in a folder or glob, hidden ones and folders are not among them.

    Raises DataError where there is none, where a suffix is not supported, or where a folder mixes kinds.
    """
    path = Path(source.path)
    skipped: list[tuple[Path, str]] = []
    if path.is_file():
        paths = [path]
    elif path.is_dir():
        paths = _files_in(path, skipped)
    elif glob.has_magic(source.path):
        paths = _only_files(_matching(path), skipped)
        if not paths:
            raise DataError("no file matches this glob", where=source.path, cure=_nearest_cure(path.parent))
    else:
        raise DataError("no such file or folder", where=source.path, cure=_nearest_cure(path))
    names = _short_names(paths)
    return Found(tuple(_source_file(path, name) for path, name in zip(paths, names, strict=True)), tuple(skipped))


def _matching(pattern: Path) -> list[Path]:
    """What matches a glob, sorted; `**` goes into folders."""
    fixed = Path(pattern.anchor)
    rest = list(pattern.relative_to(fixed).parts)
    while rest and not glob.has_magic(rest[0]):
        fixed /= rest.pop(0)
    return sorted(fixed.glob(str(Path(*rest))))


def _only_files(paths: Sequence[Path], skipped: list[tuple[Path, str]]) -> list[Path]:
    """The files among `paths`; what else is no folder to go into is put into `skipped`."""
    files = []
    for path in paths:
        if path.is_file():
            files.append(path)
        elif path.is_symlink():
            skipped.append((path, "a link to a folder" if path.is_dir() else "a link to nothing"))
        elif not path.is_dir():
            skipped.append((path, "no regular file"))
    return files


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
    return KINDS.get(Path(name.removesuffix(".gz")).suffix), is_gzip


def _files_in(folder: Path, skipped: list[tuple[Path, str]]) -> list[Path]:
    """All supported files below `folder`; Markdown beside data files is not data, alone or beside text it is text."""
    visible = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    by_kind: dict[str, list[Path]] = {}
    for path in _only_files(visible, skipped):
        kind, _ = _kind_of(path)
        if kind is None:
            skipped.append((path, f"the suffix {path.suffix or '(none)'} is not one that is read"))
        else:
            by_kind.setdefault(kind, []).append(path)
    texts = by_kind.get("txt", [])
    if len(by_kind) > 1 and all(_is_markdown(path) for path in texts):
        skipped.extend((path, "Markdown beside data files is taken for notes") for path in by_kind.pop("txt", []))
    if not by_kind:
        raise DataError("the folder holds no file that can be read", where=str(folder), cure=f"supported: {SUPPORTED}")
    if len(by_kind) > 1:
        counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in sorted(by_kind.items()))
        example = folder / f"*.{min(by_kind)}"
        cure = f"several kinds often hold the same rows twice; name one, such as {example}"
        raise DataError(f"the folder holds files of several kinds: {counts}", where=str(folder), cure=cure)
    return next(iter(by_kind.values()))


def _is_markdown(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".md")


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
    near = nearest_name(wanted, present)
    if near:
        return f"did you mean {folder / near}?"
    return f"{folder} is the nearest folder that exists; relative paths start from the recipe's folder"
