"""Leave to run the Python code that comes with a base: given by the person at the keyboard, never by a run folder."""

from collections.abc import Sequence
from pathlib import Path

from fledge.config.recipe import Recipe
from fledge.errors import RunError
from fledge.rundir import RunDir

_KEY = "model.trust_remote_code"


def with_consent(overrides: Sequence[str], *, trust_remote_code: bool) -> list[str]:
    """The settings of a command line with what --trust-remote-code stands for."""
    return [*overrides, *([f"{_KEY}=true"] if trust_remote_code else [])]


def check_recipe(recipe: Recipe, *, path: Path, overrides: Sequence[str]) -> None:
    """Raise RunError where the recipe lies in a run folder, allows code, and the command line does not."""
    run = RunDir(path.resolve().parent)
    is_in_run = run.events.exists() or run.manifest.exists()
    is_said = any(text.partition("=")[0].strip() == _KEY for text in overrides)
    if is_in_run and not is_said:
        check_consent(recipe, where=str(path), trust_remote_code=False)


def check_consent(recipe: Recipe, *, where: str, trust_remote_code: bool) -> None:
    """Raise RunError where the recipe of a run folder runs code of its base and the person who opens it has not said
    that it may, or says so of a run that has none.
    """
    if recipe.model.trust_remote_code and not trust_remote_code:
        what = f"this run was trained with Python code that comes with its base, {recipe.model.name_or_path}"
        cure = "read that code, and give --trust-remote-code if you want it to run here"
        raise RunError(what, where=where, cure=cure)
    if trust_remote_code and not recipe.model.trust_remote_code:
        what = "has no effect: this run was trained without code of its base's own"
        raise RunError(what, where="--trust-remote-code", cure="leave --trust-remote-code away")
