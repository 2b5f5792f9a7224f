"""What a person gives to a verb, a run folder or an adapter by itself: told apart and refused without torch."""

from pathlib import Path

from fledge.commands.base_path import check_base_path, with_base_path
from fledge.commands.consent import check_consent, check_recipe, with_consent
from fledge.commands.opening import Opening
from fledge.config.adapter_file import describe_adapter, is_adapter_folder
from fledge.config.load import load_recipe, read_recipe
from fledge.config.recipe import Recipe
from fledge.errors import FledgeError, RunError
from fledge.rundir import RunDir


def check_given(folder: Path, opening: Opening) -> None:
    """Raises FledgeError where a folder can be neither, its recipe or the adapter's settings cannot be read, the base
    needs code that nobody has allowed, or an option has no effect. The rest is looked at when it is opened.
    """
    if is_run(folder, opening):
        check_run(folder, opening)
        return
    describe_adapter(folder.resolve())
    recipe_given(opening)
    check_base_path(opening.base_path)


def is_run(folder: Path, opening: Opening) -> bool:
    """Whether a folder is opened as a run, which it is too where it is neither. Raises FledgeError for an option that
    would have no effect.
    """
    recipe = opening.recipe
    if RunDir(folder).recipe.is_file() and not is_adapter_folder(folder):
        if recipe is not None:
            what, cure = f"has no effect: {folder} is a run, which has its own recipe", "leave --recipe away"
            raise FledgeError(what, where="--recipe", cure=cure)
        return True
    around = RunDir(folder.parent)  # which may be somebody's own folder, with a recipe of that name
    is_of_run = folder.name == "adapter" and around.recipe.is_file() and around.events.is_file()
    if recipe is None and (is_of_run or not is_adapter_folder(folder)):
        return True
    if opening.which not in (None, "last"):
        what = f"has no effect: {folder} is one adapter, and no run that has several"
        raise FledgeError(what, where="--which", cure="leave --which away")
    return False


def check_run(folder: Path, opening: Opening) -> None:
    """Raises FledgeError where this is no run folder, its recipe cannot be read, its base needs code that nobody has
    allowed, or the base is said to lie where none is.
    """
    run = RunDir(folder)
    check_is_run(run)
    check_base_path(opening.base_path)
    check_consent(read_recipe(run.recipe), where=str(run.recipe), trust_remote_code=opening.trust_remote_code)


def check_is_run(run: RunDir) -> None:
    """Raises RunError where this is no run folder."""
    if run.recipe.is_file():
        return
    near = RunDir(run.root.parent)
    cure = f"the run folder is {near.root}" if near.recipe.is_file() else "give the folder that `fledge train` wrote"
    what = "this is not a run folder: it has no recipe.yaml"
    raise RunError(what if run.root.is_dir() else "there is no such run folder", where=str(run.root), cure=cure)


def recipe_given(opening: Opening) -> Recipe | None:
    """The recipe that goes with a plain adapter, its base where that was said to lie; None where none is given.

    Raises RecipeError where it is not valid, RunError where code of the base is not allowed or the base's folder is not
    there.
    """
    if opening.recipe is None:
        return None
    path, settings = Path(opening.recipe), with_consent((), trust_remote_code=opening.trust_remote_code)
    recipe = load_recipe(path, with_base_path(settings, opening.base_path))
    check_recipe(recipe, path=path, overrides=settings)
    return recipe
