"""A run folder that lies elsewhere than its own recipe says. It is light, for it is asked before anything heavy."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fledge.config.recipe import Recipe
from fledge.errors import RunError
from fledge.rundir import RunDir


def check_moved_run(recipe: Recipe, *, path: Path, overrides: Sequence[str]) -> None:
    """Raises RunError where the recipe of a run folder that was moved would begin a new run where that one lay."""
    run, there = RunDir(path.resolve().parent), RunDir(Path(recipe.output.dir))
    is_said = any(text.partition("=")[0].strip() == "output.dir" for text in overrides)
    if is_said or not run.manifest.is_file() or path.name != run.recipe.name or there.recipe.is_file():
        return
    here, old = (shlex.quote(f"output.dir={folder}") for folder in (run.root, there.root))
    what = f"this run folder was moved: its recipe says output.dir: {there.root}, where no run is"
    raise RunError(what, where=str(path), cure=f"add {here} to go on with this run, or {old} to train anew there")
