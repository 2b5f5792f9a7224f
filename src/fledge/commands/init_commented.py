"""`fledge init` as far as it needs no rows: what is asked, names of files, and the commented recipe. It is light."""

import os
from dataclasses import dataclass
from pathlib import Path

from fledge.commands.import_recipe import check_new, write_new
from fledge.config.paths import is_local
from fledge.config.template import commented_recipe
from fledge.errors import FledgeError
from fledge.places import expanded


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as text; `spans` are the trained parts, as character ranges."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Initialised:
    """A recipe that was written, what was found out about its rows, and the first of them."""

    recipe: Path
    remarks: tuple[str, ...] = ()
    rows: tuple[ShownRow, ...] = ()


def check_asked(path: Path, *, model: str | None, data: str | None) -> None:
    """Raises FledgeError where a file is at `path`, or `data` has no `model`."""
    check_new(path)
    if data is not None and model is None:
        raise FledgeError("the base is missing", where="--data", cure="give --model too: a hub id or a folder")


def commented(path: Path, *, model: str | None = None) -> Initialised:
    """Write the commented recipe with every option. Raises FledgeError where a file is there or cannot be."""
    write_new(path, commented_recipe(None if model is None else placed(model, path.parent)))
    return Initialised(path)


def _is_local(name: str) -> bool:
    """Whether a name on the command line is a path: by its form, or because it exists."""
    return is_local(name) or (not name.startswith("builtin:") and Path(name).exists())


def _here(name: str) -> Path:
    return expanded(name).resolve()


def absolute(name: str) -> str:
    """A local path whole; a hub id as it is."""
    return str(_here(name)) if _is_local(name) else name


def placed(name: str, folder: Path) -> str:
    """A local path as it is written into a recipe in `folder`; a hub id as it is."""
    if not _is_local(name):
        return name
    path = os.path.relpath(_here(name), folder.resolve())
    if path.startswith(os.path.join("..", "..")):  # noqa: PTH118  # a relative path that climbs is no better
        return str(_here(name))
    return path if path.startswith("..") else f"./{path}"
