"""A recipe from its file and the command line: strict, with everything that is wrong told at once."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fledge.config.document import MAX_BYTES, Document, Key, read_document
from fledge.config.dump import dump_recipe
from fledge.config.explain import dotted, explain
from fledge.config.nearest import nearest_name
from fledge.config.overrides import WHERE, apply_overrides
from fledge.config.paths import Resolver
from fledge.config.recipe import Recipe, conflicts
from fledge.errors import Problem, RecipeError

__all__ = ["dump_recipe", "load_recipe", "read_recipe"]

_START = "`fledge init` writes a recipe to start from"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path` with the settings `key.path=value` put over it, complete, its local paths absolute.

    Relative paths start from the recipe's folder. Raises RecipeError with every problem that can be found at once:
    faults of the YAML, unknown keys, wrong types and ranges, values that do not go together, paths that are not there.
    """
    document = _read(Path(path))
    apply_overrides(document, overrides)
    resolver = Resolver(document, Path(path))
    resolver.resolve()
    recipe, refused = _validate(document)
    problems = [*document.problems, *resolver.problems, *refused.values()]
    problems += _conflicts(recipe or _without(document, refused), refused, document)
    if problems or recipe is None:
        raise RecipeError(_in_order(problems))
    return recipe


def read_recipe(path: str | Path) -> Recipe:
    """The complete recipe that a run folder keeps; the data and folders it names need not be there any more.

    Raises RecipeError where the file is not a recipe.
    """
    document = _read(Path(path))
    recipe, refused = _validate(document)
    problems = [*document.problems, *refused.values()]
    if problems or recipe is None:
        raise RecipeError(_in_order(problems))
    return recipe


def _read(path: Path) -> Document:
    """The document of a file that holds a mapping; RecipeError where there is none to go on with."""
    document = read_document(_content(path), str(path))
    if document.tree is None and not document.problems:
        document.problems.append(Problem("the recipe is empty", str(path), _START))
    elif document.tree is not None and not isinstance(document.tree, dict):
        found = "a list" if isinstance(document.tree, tuple) else "a single value"
        what = f"a recipe is a mapping of sections ({', '.join(Recipe.model_fields)}); this is {found}"
        document.problems.append(Problem(what, document.where(()), _START))
    if not isinstance(document.tree, dict):
        raise RecipeError(document.problems)
    return document


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            inside = sorted(entry.name for entry in path.glob("*.y*ml")) if path.is_dir() else []
            cure = f"in it there is: {', '.join(inside[:5])}" if inside else "give the recipe's YAML file"
            raise RecipeError([Problem(f"this is {kind}, not a recipe", str(path), cure)])
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError([Problem("there is no such recipe", str(path), _near(path))]) from None
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RecipeError([Problem(f"the recipe cannot be read: {what}", str(path))]) from None


def _near(path: Path) -> str:
    folder = path.parent
    names = [entry.name for entry in folder.glob("*.y*ml")] if folder.is_dir() else []
    nearest = nearest_name(path.name, names)
    return f"did you mean {folder / nearest}?" if nearest else _START


def _validate(document: Document) -> tuple[Recipe | None, dict[Key, Problem]]:
    try:
        return Recipe.model_validate(document.tree), {}
    except ValidationError as error:
        return None, {k: v for k, v in explain(error, document).items() if k not in document.unreadable}


def _without(document: Document, refused: dict[Key, Problem]) -> Recipe | None:
    """The recipe with defaults in the place of what was refused, to look for conflicts in the rest of it."""
    tree = copy.deepcopy(document.tree)
    for key in refused:
        _remove(tree, key)
    try:
        return Recipe.model_validate(tree)
    except ValidationError:
        return None


def _remove(tree: Any, key: Key) -> None:
    for part in key[:-1]:
        is_there = part in tree if isinstance(tree, dict) else isinstance(tree, tuple) and isinstance(part, int)
        if not is_there:
            return
        tree = tree[part]
    if key and isinstance(tree, dict):
        tree.pop(key[-1], None)


def _conflicts(recipe: Recipe | None, refused: dict[Key, Problem], document: Document) -> list[Problem]:
    found = conflicts(recipe) if recipe is not None else []
    return [
        Problem(f"{dotted(conflict.keys[0])}: {conflict.what}", document.where(conflict.keys[0]), conflict.cure)
        for conflict in found
        if not any(bad[: len(key)] == key[: len(bad)] for bad in refused for key in conflict.keys)
    ]


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    """By line, those of the command line last; each once."""

    def rank(problem: Problem) -> tuple[bool, int]:
        line = re.search(r":(\d+)$", problem.where)
        return problem.where.startswith(WHERE), int(line[1]) if line else 0

    return sorted(dict.fromkeys(problems), key=rank)
