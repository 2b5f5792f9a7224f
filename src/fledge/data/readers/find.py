"""From a source's path to the files that it means."""

import glob
from dataclasses import dataclass
from pathlib import Path

from fledge.config.data import SourceConfig
from fledge.config.nearest import nearest_name
from fledge.data.readers.folder import files_in, only_files
from fledge.data.readers.splits import splits_of_name
from fledge.data.readers.suffixes import KINDS, SUPPORTED, Kind, kind_of_file
from fledge.errors import DataError

__all__ = ["KINDS", "Found", "Kind", "SourceFile", "find_files", "is_local"]

_SUFFIX_CURES = {
    ".xls": "save it as .xlsx or .csv",
    ".ods": "save it as .xlsx or .csv",
    ".zip": "unpack it and name the file or folder inside",
    ".pkl": "a pickle can run code and is never read: save it as parquet or jsonl",
    ".pickle": "a pickle can run code and is never read: save it as parquet or jsonl",
}


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
        return self.kind in ("jsonl", "csv", "tsv")


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a source, sorted by path, and those that lie among them and are not read."""

    files: tuple[SourceFile, ...]
    skipped: tuple[tuple[Path, str], ...] = ()
    """Each with the reason."""
    note: str = ""
    """What a person should know of the files together."""


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
        paths = files_in(path, source, skipped=skipped)
    elif glob.has_magic(source.path):
        paths = only_files(_matching(path), skipped)
        if not paths:
            raise DataError("no file matches this glob", where=source.path, cure=_nearest_cure(path.parent))
    else:
        raise DataError("no such file or folder", where=source.path, cure=_nearest_cure(path))
    names = _short_names(paths)
    files = tuple(_source_file(path, name) for path, name in zip(paths, names, strict=True))
    splits = sorted({split for name in names for split in splits_of_name(Path(name).name)})
    is_mixed = len(files) > 1 and len(splits) > 1
    note = f"the files of several splits are read as one: {', '.join(splits)}" if is_mixed else ""
    return Found(files, tuple(skipped), note)


def _matching(pattern: Path) -> list[Path]:
    """What matches a glob, sorted; `**` goes into folders."""
    fixed = Path(pattern.anchor)
    rest = list(pattern.relative_to(fixed).parts)
    while rest and not glob.has_magic(rest[0]):
        fixed /= rest.pop(0)
    return sorted(fixed.glob(str(Path(*rest))))


def _source_file(path: Path, name: str) -> SourceFile:
    kind, is_gzip = kind_of_file(path)
    if kind is None:
        raise DataError(
            f"the suffix {''.join(path.suffixes[-2:]) or '(none)'} is not one that is read",
            where=str(path),
            cure=_SUFFIX_CURES.get(path.suffix.lower(), f"supported: {SUPPORTED}"),
        )
    return SourceFile(path=path, name=name, kind=kind, is_gzip=is_gzip)


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
