"""What is wrong with the rows of `fledge init`, told in terms of its --data: there is no recipe to set options in."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

from fledge.data.readers.suffixes import kind_of_file
from fledge.errors import DataError
from fledge.places import expanded

_SOURCE = re.compile(r"\bthe source\b|\bdata\.train\b")
_CHOICE = re.compile(r"\bthe source's (split|subset|path)\b")
_RECIPE = "write a recipe with `fledge init`"
_SAVED = "dataset_dict.json"
_BOOKKEEPING = frozenset({_SAVED, "state.json", "dataset_info.json", "dataset_infos.json", "config.json"})
_SHOWN = 3


def in_terms_of_data(error: DataError, data: str) -> DataError:
    """The error with a cure that can be followed on the command line, or in the commented recipe.

    `data` is what was given as --data. An error whose cure speaks of no recipe is given back as it is.
    """
    problem = replace(error.problems[0], cure=_cure(error.problems[0].cure, data))
    if problem == error.problems[0]:
        return error
    return DataError(problem.what, where=problem.where, cure=problem.cure)


def _cure(cure: str, data: str) -> str:
    if "the recipe's folder" in cure:
        return cure.replace("the recipe's folder", str(Path.cwd()))
    if "(in a recipe: " in cure:
        return f"write --data {shlex.quote(str(Path(data).resolve()))}, or start from another folder"
    if not _SOURCE.search(cure) or cure.startswith(_RECIPE):
        return cure
    if not _CHOICE.search(cure):
        return f"{_RECIPE} without --data, and there: {cure.replace('the source', 'data.train')}"
    parts = _parts(expanded(data), wants_folders="subset" in cure)
    if parts:
        return f"name a part of it: {' or '.join(f'--data {shlex.quote(str(part))}' for part in parts[:_SHOWN])}"
    if "the source's path" in cure:
        return cure.replace("the source's path", "--data")
    there = cure.replace("the source's ", "data.train.")
    return f"{_RECIPE} without --data, and there: {there}"


def _parts(folder: Path, *, wants_folders: bool) -> list[Path]:
    """What can be named in the place of a folder: its own folders where each is a data set, else its files."""
    if not folder.is_dir():
        return []
    inside = sorted(path for path in folder.rglob("*") if not _is_hidden(path.relative_to(folder)))
    files = [path for path in inside if path.is_file() and _holds_rows(path)]
    folders = [path for path in inside if path.is_dir() and path.parent == folder]
    if (folder / _SAVED).is_file():
        return folders
    with_rows = [path for path in folders if any(file.is_relative_to(path) for file in files)]
    return with_rows if wants_folders and with_rows else files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _holds_rows(path: Path) -> bool:
    is_notes = path.name.lower().removesuffix(".gz").endswith(".md")
    return kind_of_file(path)[0] is not None and path.name not in _BOOKKEEPING and not is_notes
