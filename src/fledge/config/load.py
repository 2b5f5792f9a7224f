"""A recipe from its file and the command line: strict, with everything that is wrong told at once."""

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fledge.config.document import Document, Key
from fledge.config.dump import dump_recipe
from fledge.config.explain import dotted, explain
from fledge.config.files import read_mapping
from fledge.config.overrides import WHERE, apply_overrides, for_command_line
from fledge.config.paths import Resolver
from fledge.config.recipe import Recipe, conflicts
from fledge.config.start import take_from_start
from fledge.errors import Problem, RecipeError

__all__ = ["dump_recipe", "load_recipe", "read_recipe"]

_ROWS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_START_WITH_ROWS = "`fledge init recipe.yaml` writes a recipe; name this file in it as data.train"
_START = "a mapping of sections is wanted; `fledge init` writes a recipe to start from"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path` with the settings `key.path=value` put over it, complete, its local paths absolute.

    Relative paths start from the recipe's folder. Raises RecipeError with every problem that can be found at once:
    faults of the YAML, unknown keys, wrong types and ranges, values that do not go together, paths that are not there.
    """
    if Path(path).suffix.lower() in _ROWS and Path(path).is_file():
        raise RecipeError([Problem("this is a file of rows, not a recipe", str(path), _START_WITH_ROWS)])
    document = read_mapping(Path(path), "recipe", start=_START)
    apply_overrides(document, overrides)
    resolver = Resolver(document, Path(path))
    resolver.resolve()
    of_start = take_from_start(document)
    recipe, refused = validate(document)
    problems = [*document.problems, *resolver.problems, *of_start, *refused.values()]
    problems += conflicts_beside(refused, document, recipe=recipe)
    if problems or recipe is None:
        raise RecipeError(in_order(problems))
    return recipe


def read_recipe(path: str | Path) -> Recipe:
    """The complete recipe that a run folder keeps; the data and folders it names need not be there any more.

    Raises RecipeError where the file is not a recipe.
    """
    document = read_mapping(Path(path), "recipe", start=_START)
    recipe, refused = validate(document)
    problems = [*document.problems, *refused.values()]
    if problems or recipe is None:
        raise RecipeError(in_order(problems))
    return recipe


def validate(document: Document) -> tuple[Recipe | None, dict[Key, Problem]]:
    """The recipe that a tree is, or None and what is wrong with each key of it."""
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


def conflicts_beside(refused: dict[Key, Problem], document: Document, *, recipe: Recipe | None) -> list[Problem]:
    """Values of `recipe`, or of what is left of the document without what was refused, that cannot work together."""
    left = recipe or _without(document, refused)
    found = conflicts(left) if left is not None else []
    return [
        Problem(f"{dotted(conflict.keys[0])}: {conflict.what}", document.where(conflict.keys[0]), conflict.cure)
        for conflict in found
        if not any(bad[: len(key)] == key[: len(bad)] for bad in refused for key in conflict.keys)
    ]


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """By line, those of the command line last; each once."""

    def rank(problem: Problem) -> tuple[bool, int]:
        line = re.search(r":(\d+)$", problem.where)
        return problem.where.startswith(WHERE), int(line[1]) if line else 0

    return sorted(dict.fromkeys(_as_given(problem) for problem in problems), key=rank)


def _as_given(problem: Problem) -> Problem:
    """A problem of the command line with a cure that the command line takes."""
    is_outside = problem.where.startswith(WHERE)
    return replace(problem, cure=for_command_line(problem.cure)) if is_outside else problem
