"""Which split a file of a folder belongs to, by its name: the rules of the datasets library.

They are those of https://huggingface.co/docs/hub/datasets-file-names-and-splits, with one difference: capitals are no
other letters here, so that `Test.csv` is not trained on.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_BETWEEN = r"[-._ 0-9]"
_SHARD = re.compile(r"(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_OF_SPLIT = {
    split: re.compile(rf"(?:^|{_BETWEEN})(?:{'|'.join(words)})(?={_BETWEEN}|$)", re.IGNORECASE)
    for split, words in _WORDS.items()
}


def splits_of_name(name: str) -> list[str]:
    """The splits that a file's or a folder's name speaks of: `my_train_file.csv` of train, `data.csv` of none."""
    return [split for split, pattern in _OF_SPLIT.items() if pattern.search(name)]


def splits_by_name(paths: Sequence[Path], folder: Path) -> Mapping[Path, tuple[str, ...]]:
    """The splits of each file below `folder` whose name, or whose folder's name, speaks of any.

    Of the three ways to name them the first that is found decides for all: `data/SPLIT-00000-of-00001.EXT`, folders
    named by split, files named by split. A file that speaks of two splits has both.
    """
    inner = {path: path.relative_to(folder) for path in paths}
    for found in (_by_shard(inner), _by_folder(inner), _by_file(inner)):
        if found:
            return found
    return {}


def configurations(paths: Iterable[Path], folder: Path) -> list[str]:
    """The folders right below `folder` that hold files named by split each, as subsets of a data set do.

    Empty where there are fewer than two, or where these folders are themselves the splits.
    """
    by_top: dict[str, list[PurePath]] = {}
    for path in paths:
        inner = path.relative_to(folder)
        if len(inner.parts) > 1:
            by_top.setdefault(inner.parts[0], []).append(PurePath(*inner.parts[1:]))
    named = [top for top, inners in by_top.items() if any(_speaks(inner) for inner in inners)]
    is_split = any(splits_of_name(top) for top in by_top)
    return sorted(named) if len(named) > 1 and not is_split else []


def _speaks(inner: PurePath) -> bool:
    return any(splits_of_name(part) for part in inner.parts)


def _by_shard(inner: Mapping[Path, Path]) -> dict[Path, tuple[str, ...]]:
    found: dict[Path, tuple[str, ...]] = {}
    for path, place in inner.items():
        shard = _SHARD.fullmatch(place.name)
        if place.parts[:-1] == ("data",) and shard is not None:
            found[path] = (shard["split"],)
    return found


def _by_folder(inner: Mapping[Path, Path]) -> dict[Path, tuple[str, ...]]:
    splits = {
        path: tuple(dict.fromkeys(split for part in place.parts[:-1] for split in splits_of_name(part)))
        for path, place in inner.items()
    }
    return {path: found for path, found in splits.items() if found}


def _by_file(inner: Mapping[Path, Path]) -> dict[Path, tuple[str, ...]]:
    splits = {path: tuple(splits_of_name(place.name)) for path, place in inner.items()}
    return {path: found for path, found in splits.items() if found}
