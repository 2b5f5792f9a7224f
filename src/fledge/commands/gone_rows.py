"""Rows that are not where a run's recipe says, as after a move: told with the key that names them."""

import glob
from collections.abc import Iterator
from pathlib import Path

from fledge.commands.open_run import OpenRun
from fledge.config.data import SourceConfig
from fledge.config.recipe import Recipe, sources
from fledge.errors import RunError


def check_rows(opened: OpenRun, *splits: str) -> None:
    """Raises RunError where local files or folders that these parts of `data` name are gone."""
    gone = [(key, path) for split in splits for key, path in _local(opened.recipe, split) if not _is_there(path)]
    if gone:
        [(key, path), *more] = gone
        what = f"the rows of {key} are not there any more: {path}" + f", and {len(more)} more" * bool(more)
        cure = f"put them back, or write where they lie now as {key} in {opened.recipe_path}"
        if "test" not in splits and opened.plain is None:
            cure += ": they are compared with the rows of the training"
        raise RunError(what, where=str(opened.recipe_path), cure=cure)


def _local(recipe: Recipe, split: str) -> Iterator[tuple[str, str]]:
    """Each local source of a part of `data`, with the key that names it."""
    value = getattr(recipe.data, split)
    for index, source in enumerate(sources(value)):
        key = f"data.{split}.path" if isinstance(value, SourceConfig) else f"data.{split}[{index}].path"
        if source.path.startswith("/"):
            yield key, source.path


def _is_there(path: str) -> bool:
    return Path(path).exists() or (glob.has_magic(path) and any(Path("/").glob(path.lstrip("/"))))
