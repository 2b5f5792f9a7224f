"""`fledge import`: another tool's configuration as a recipe."""

from pathlib import Path

from fledge.config.files import read_mapping
from fledge.config.imports import Imported, translate
from fledge.errors import FledgeError


def import_recipe(file: Path, out: Path | None = None) -> Imported:
    """Translate the small BLOOM tool's YAML at `file`; write the recipe to `out` where that is given.

    Raises RecipeError with every key that cannot be translated, FledgeError where `out` exists or cannot be written.
    """
    imported = translate(read_mapping(file, "configuration"))
    if out is not None:
        write_new(out, imported.recipe)
    return imported


def check_new(path: Path) -> None:
    """Raises FledgeError where a file that is to be written is there already."""
    if path.exists():
        raise _is_there(path)


def _is_there(path: Path) -> FledgeError:
    cure = "give another name, or remove it"
    return FledgeError("there is a file of this name; it was left as it is", where=str(path), cure=cure)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet. Raises FledgeError where it is, or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise FledgeError(f"the recipe cannot be written: {error.strerror}", where=str(path)) from None
