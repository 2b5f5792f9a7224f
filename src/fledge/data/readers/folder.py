"""The files of a folder that a source means: its split, its subset, and what lies beside them."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from fledge.config.data import SourceConfig
from fledge.data.readers.splits import configurations, splits_by_name
from fledge.data.readers.suffixes import SUPPORTED, Kind, kind_of_file
from fledge.errors import DataError

Skipped = list[tuple[Path, str]]

_STATE, _INFO, _DICT = "state.json", "dataset_info.json", "dataset_dict.json"
_BOOKKEEPING = frozenset({_STATE, _INFO, _DICT, "dataset_infos.json", "config.json"})
_NOTES_OF_CARD = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_CONFIGS = re.compile(r"^configs:.*?(?=^[^\s#-]|\Z)", re.MULTILINE | re.DOTALL)
_LONGEST_CARD = 1 << 20
_OF_NO_SPLIT = "other files are named by their split (train, test, ...) and this one is not"


def files_in(folder: Path, source: SourceConfig, *, skipped: Skipped) -> list[Path]:
    """The files below `folder` that hold the source's split, as the same data set on a hub would have it.

    What is not read is put into `skipped`. Hidden files are not looked at. Raises DataError where there is no such
    split or subset, where a choice is left, or where the files are of several kinds.
    """
    if (folder / _STATE).is_file() and (folder / _INFO).is_file():
        _refuse_subset(folder, source)
        _refuse_split(folder, source)
        files = _saved(folder)
        others = [path for path in sorted(folder.iterdir()) if path not in files and path.name not in _BOOKKEEPING]
        skipped.extend((path, "no part of the saved data set") for path in others)
        return files
    if (folder / _DICT).is_file():
        _refuse_subset(folder, source)
        return _saved_split(folder, source, skipped)
    visible = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    paths = _data_files(only_files(visible, skipped), skipped)
    if not paths:
        raise DataError("the folder holds no file that can be read", where=str(folder), cure=f"supported: {SUPPORTED}")
    names = _configurations_of_card(folder)
    chosen = _by_card(folder, source, names) if names else _by_names(folder, source, paths)
    reasons = {path: chosen.get(path, _OF_NO_SPLIT) for path in paths}
    skipped.extend((path, reason) for path, reason in reasons.items() if reason)
    return _of_one_kind([path for path, reason in chosen.items() if not reason], folder)


def only_files(paths: Sequence[Path], skipped: Skipped) -> list[Path]:
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


def _data_files(paths: Sequence[Path], skipped: Skipped) -> list[Path]:
    """The files of a kind that is read. Markdown beside data is not data, alone or beside text it is text."""
    found: dict[Path, Kind] = {}
    for path in paths:
        kind, _ = kind_of_file(path)
        if kind is None:
            skipped.append((path, f"the suffix {path.suffix or '(none)'} is not one that is read"))
        else:
            found[path] = kind
    books = [path for path in found if path.name in _BOOKKEEPING]
    if len(books) < len(found):
        for path in books:
            skipped.append((path, "bookkeeping of the datasets library"))
            del found[path]
    texts = [path for path, kind in found.items() if kind == "txt"]
    if len(texts) < len(found) and all(_is_markdown(path) for path in texts):
        for path in texts:
            skipped.append((path, "Markdown beside data files is taken for notes"))
            del found[path]
    return list(found)


def _of_one_kind(paths: list[Path], folder: Path) -> list[Path]:
    kinds: dict[str, int] = {}
    for path in paths:
        kind = str(kind_of_file(path)[0])
        kinds[kind] = kinds.get(kind, 0) + 1
    if len(kinds) > 1:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        example = folder / f"*.{min(kinds)}"
        cure = f"several kinds often hold the same rows twice; name one, such as {example}"
        raise DataError(f"the folder holds files of several kinds: {counts}", where=str(folder), cure=cure)
    return paths


def _is_markdown(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".md")


def _by_names(folder: Path, source: SourceConfig, paths: Sequence[Path]) -> Mapping[Path, str]:
    """For each file that belongs to a split, why it is not read; empty where it is."""
    subsets = configurations(paths, folder)
    if source.subset is not None and source.subset not in subsets:
        _refuse_subset(folder, source, subsets)
    if subsets and source.subset is None:
        what = f"the folder holds several data sets, each with files named by split: {', '.join(subsets)}"
        raise DataError(what, where=str(folder), cure=f"choose one: set the source's subset, such as {subsets[0]}")
    if source.subset is not None:
        top, whole = folder / source.subset, source.model_copy(update={"subset": None})
        inner = _by_names(top, whole, [path for path in paths if path.is_relative_to(top)])
        others = {path: "it belongs to another subset" for path in paths if not path.is_relative_to(top)}
        return {**others, **inner}
    splits = splits_by_name(paths, folder)
    if not splits:
        _refuse_split(folder, source)
        return dict.fromkeys(paths, "")
    several = next((path for path, names in splits.items() if len(names) > 1), None)
    if several is not None:
        what = f"{several.relative_to(folder)} is named by several splits: {', '.join(splits[several])}"
        raise DataError(what, where=str(folder), cure="rename it, or name the files in the source's path")
    found = {path: names[0] for path, names in splits.items()}
    return _of_split(found, source, folder, num_others=len(paths) - len(found))


def _of_split(found: Mapping[Path, str], source: SourceConfig, folder: Path, *, num_others: int) -> Mapping[Path, str]:
    present = sorted(set(found.values()))
    if source.split not in present:
        others = f", and {num_others} named by none" if num_others else ""
        what = f"no file here is of the split {source.split}; there are files of {', '.join(present)}{others}"
        cure = f"set the source's split to one of those ({present[0]}), or name files: {folder / '*'} reads all of them"
        raise DataError(what, where=str(folder), cure=cure)
    return {path: "" if split == source.split else f"it belongs to the split {split}" for path, split in found.items()}


def _refuse_subset(folder: Path, source: SourceConfig, subsets: Sequence[str] = ()) -> None:
    if source.subset is not None:
        what = f"the folder has no subset {source.subset}" if subsets else "the folder has no subsets"
        cure = f"there is: {', '.join(subsets)}" if subsets else "remove subset"
        raise DataError(what, where=str(folder), cure=cure)


def _refuse_split(folder: Path, source: SourceConfig) -> None:
    if source.split != "train":
        what = f"no file of this folder is named by a split, so split: {source.split} chooses nothing"
        raise DataError(what, where=str(folder), cure="remove split, or name the file in the source's path")


def _configurations_of_card(folder: Path) -> list[str]:
    """The configurations that the folder's README.md, a dataset card, declares; empty where it declares none."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > _LONGEST_CARD:
        return []
    head = _NOTES_OF_CARD.match(card.read_text(encoding="utf-8", errors="replace"))
    declared = _CONFIGS.search(head[1]) if head is not None else None
    if declared is None:
        return []
    if "://" in declared[0]:
        what = "README.md declares files that lie elsewhere (://), and a local folder is read without the network"
        raise DataError(what, where=str(folder), cure="name the files in the source's path")
    return [str(name) for name in _asked(folder, lambda: datasets.get_dataset_config_names(str(folder)))]


def _by_card(folder: Path, source: SourceConfig, names: Sequence[str]) -> Mapping[Path, str]:
    """As `_by_names`, by what the dataset card declares; the datasets library reads it."""
    subset = source.subset or (names[0] if len(names) == 1 else "default" if "default" in names else None)
    if subset is None:
        what = f"README.md declares several data sets: {', '.join(names)}"
        raise DataError(what, where=str(folder), cure=f"choose one: set the source's subset, such as {names[0]}")
    if subset not in names:
        _refuse_subset(folder, source, names)
    builder = _asked(folder, lambda: datasets.load_dataset_builder(str(folder), subset))
    found = {
        Path(path): str(split)
        for split, files in (builder.config.data_files or {}).items()
        for path in files
        if kind_of_file(Path(path))[0] is not None
    }
    outside = next((path for path in found if not path.is_relative_to(folder)), None)
    if outside is not None:
        what = f"README.md declares a file outside its folder: {outside}"
        raise DataError(what, where=str(folder), cure="name the files in the source's path")
    return _of_split(found, source, folder, num_others=0)


def _asked(folder: Path, ask: Any) -> Any:
    try:
        return ask()
    except Exception as error:  # datasets lets through what its many parts raise; nothing is swallowed here
        logging.getLogger(__name__).debug("the dataset card cannot be used", exc_info=True)
        what = f"README.md declares data sets that cannot be found: {(str(error).splitlines() or [''])[0]}"
        cure = "mend the configs in README.md, or name the files in the source's path"
        raise DataError(what, where=str(folder), cure=cure) from error


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of a folder that `Dataset.save_to_disk` wrote, in its own order."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        names = [str(item["filename"]) for item in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        cure = "save the data set again with save_to_disk"
        raise DataError(
            f"cannot be read as a saved data set: {error}", where=str(folder / _STATE), cure=cure
        ) from error
    paths = [folder / name for name in names]
    gone = [path.name for path in paths if path.parent != folder or not path.is_file()]
    if gone or not paths:
        what = f"the saved data set lacks {', '.join(gone) or 'its files'}"
        raise DataError(what, where=str(folder), cure="save the data set again with save_to_disk")
    return paths


def _saved_split(folder: Path, source: SourceConfig, skipped: Skipped) -> list[Path]:
    """The Arrow files of one split of a folder that `DatasetDict.save_to_disk` wrote."""
    splits = sorted(path.name for path in folder.iterdir() if (path / _STATE).is_file())
    if source.split not in splits:
        what = f"the saved data set has no split {source.split}; there is: {', '.join(splits) or 'none'}"
        raise DataError(what, where=str(folder), cure="set the source's split to one of those")
    for split in splits:
        if split != source.split:
            skipped.extend((path, f"it belongs to the split {split}") for path in _saved(folder / split))
    return _saved(folder / source.split)
