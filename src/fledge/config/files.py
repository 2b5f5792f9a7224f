"""A YAML file that holds a mapping: found, read within bounds, and told apart from everything else."""

from pathlib import Path

from fledge.config.document import MAX_BYTES, Document, read_document
from fledge.config.nearest import nearest_name
from fledge.errors import Problem, RecipeError


def read_mapping(path: Path, noun: str, *, start: str = "") -> Document:
    """The document at `path`, whose tree is a dict; it may have problems still.

    `noun` is what the file should be, `start` the cure where it is nothing of the kind. Raises RecipeError where there
    is no such file, it cannot be read, or it holds no mapping.
    """
    document = read_document(_content(path, noun, start), str(path))
    if document.tree is None and not document.problems:
        document.problems.append(Problem(f"the {noun} is empty", str(path), start))
    elif document.tree is not None and not isinstance(document.tree, dict):
        found = "a list" if isinstance(document.tree, tuple) else "a single value"
        document.problems.append(Problem(f"this is {found}, not a {noun}", str(path), start))
    if not isinstance(document.tree, dict):
        raise RecipeError(document.problems)
    return document


def _content(path: Path, noun: str, start: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            inside = _yaml_files(path)
            cure = f"did you mean {path / inside[0]}?" if inside else f"give the {noun}'s YAML file"
            raise RecipeError([Problem(f"this is {kind}, not a {noun}", str(path), cure)])
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        nearest = nearest_name(path.name, _yaml_files(path.parent))
        cure = f"did you mean {path.parent / nearest}?" if nearest else start
        raise RecipeError([Problem(f"there is no such {noun}", str(path), cure)]) from None
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RecipeError([Problem(f"the {noun} cannot be read: {what}", str(path))]) from None


def _yaml_files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.glob("*.y*ml")) if folder.is_dir() else []
