"""A base that lies elsewhere than its run's recipe says: found with `--base-path`, and proven by its hash."""

import os
import shlex
from pathlib import Path
from typing import Any

from fledge.commands.base_path import OPTION, folder_of
from fledge.commands.manifest import base_digest, files_noted, is_same_base, read_manifest
from fledge.commands.ownership import with_changes
from fledge.config.load import read_recipe
from fledge.config.recipe import Recipe
from fledge.errors import ModelError, RunError
from fledge.rundir import RunDir


def placed(recipe: Recipe, run: RunDir, *, base_path: Path | str | None) -> Recipe:
    """The recipe of a run with its base where it lies now; the recipe itself where `base_path` is None.

    Nothing is written. Raises RunError where there is no folder, or where it holds another base than the run noted;
    ModelError where it holds no base.
    """
    if base_path is None:
        return recipe
    folder = folder_of(base_path)
    now, noted = base_digest(folder), noted_base(run)
    if noted is None or is_same_base(noted, now):
        return as_called(recipe, folder)
    where = f"{OPTION} {folder}"
    if not files_noted(noted):
        what = (
            "whether this is the base that the run was trained on cannot be told: an older Fledge noted no hash of it"
        )
        raise RunError(what, where=where, cure=f"leave {OPTION} out: the recipe names {recipe.model.name_or_path}")
    what = f"this is not the base that the run in {run.root} was trained on: {_apart(files_noted(noted), now or {})}"
    raise RunError(
        what,
        where=where,
        cure=f"give {OPTION} the folder that holds that base, its weights files as they were, or leave {OPTION} out: "
        f"the recipe names {recipe.model.name_or_path}",
    )


def noted_base(run: RunDir) -> Any:
    """The hash of the base that a run began with; None where none is noted."""
    return read_manifest(run.manifest).get("hashes", {}).get("base")


def unproven(run: RunDir, base_path: Path | str | None) -> tuple[str, ...]:
    """What to say where a base was named and the run has noted nothing that it could be compared with."""
    if base_path is None or noted_base(run) is not None:
        return ()
    what = f"whether {folder_of(base_path)} holds the base that this run was trained on cannot be told"
    return (f"{what}: {run.manifest} is not there or does not say",)


def name_of_base(recipe: Recipe, run: RunDir) -> str:
    """What the base is called in what is written for others.

    A hub id keeps its name wherever the base was loaded from; a local base is called by where it lies now.
    """
    named = _saved_name(recipe, run)
    return recipe.model.name_or_path if named.startswith("/") else named


def as_called(recipe: Recipe, name: str) -> Recipe:
    """The recipe with its base called otherwise."""
    return with_changes(recipe, {"model": {"name_or_path": name}})


def as_saved(recipe: Recipe, run: RunDir) -> Recipe:
    """The recipe as the run folder keeps it: the base by the name that it has there."""
    return as_called(recipe, _saved_name(recipe, run))


def option_for(recipe: Recipe, run: RunDir) -> str:
    """The option that a command needs to find the base where `recipe` has it; empty where the run's own name does."""
    here = recipe.model.name_or_path
    return "" if here == _saved_name(recipe, run) else f" {OPTION} {shlex.quote(here)}"


def check_there(recipe: Recipe, run: RunDir) -> None:
    """Raises RunError where the recipe names a local base that is gone, with the option that helps."""
    name = recipe.model.name_or_path
    if not name.startswith("/") or Path(name).exists():
        return
    near = _along_with_run(recipe, run)
    cure = f"add {OPTION} {shlex.quote(near)}: the same base lies there" if near else _ANYWHERE
    raise RunError(f"the base of this run is not there any more: {name}", where=str(run.recipe), cure=cure)


_ANYWHERE = f"add {OPTION} FOLDER: where the base lies now; it is compared with the hash that the run noted"


def _along_with_run(recipe: Recipe, run: RunDir) -> str | None:
    """Where the base is if it was moved together with the run folder; None where it is not there."""
    way = os.path.relpath(recipe.model.name_or_path, recipe.output.dir)
    folder = os.path.normpath(run.root.resolve() / way)
    try:
        return folder if is_same_base(noted_base(run), base_digest(folder)) else None
    except ModelError:  # it is no base
        return None


def _apart(noted: dict[str, str], now: dict[str, str]) -> str:
    lacking = [name for name in noted if name not in now]
    if lacking:
        return f"it lacks {', '.join(lacking[:3])}"
    other = [name for name, digest in noted.items() if now[name] != digest]
    return f"{', '.join(other[:3])} has another hash" if other else "it has a model.safetensors besides"


def _saved_name(recipe: Recipe, run: RunDir) -> str:
    """The base's name in the run folder's own recipe; that of `recipe` where the folder has none yet."""
    return (read_recipe(run.recipe) if run.recipe.is_file() else recipe).model.name_or_path
