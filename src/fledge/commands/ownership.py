"""Whether a run folder belongs to a recipe, and what an earlier start of the run has settled."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fledge.commands.base_path import check_run_exists
from fledge.config.dump import flow
from fledge.config.load import read_recipe
from fledge.config.recipe import Recipe
from fledge.config.start import FROM_ADAPTER
from fledge.errors import RunError
from fledge.rundir import RunDir, new_place

FREE = ("output.", "data.test", "train.save_every_steps", "train.keep_checkpoints", "model.keep_dequantized")
"""Keys that may change between two starts of one run: they do not change what is trained."""

BASE = "model.name_or_path"
_NAMED = 3
"""Files that a refusal names."""
SETTLED = (
    "data.packing",
    "model.attention",
    "model.placement",
    "train.engine",
    "train.share_prefixes",
    "train.kernels",
    "train.micro_batch_tokens",
    "train.micro_batch_rows",
    "train.gradient_checkpointing",
)
"""Keys that `auto`, or nothing, leaves to the model and the machine; the first start settles them."""


def settled_recipe(recipe: Recipe, run: RunDir, *, is_moved: bool = False) -> Recipe:
    """The recipe with whatever the run's first start settled; the recipe itself where the run is new.

    `is_moved`: the base's hash was compared with the one that the run noted, so that its name need not be the same.
    Raises RunError with every differing key where the folder belongs to another recipe, or holds something else.
    """
    if not run.recipe.exists():
        _check_is_free(run)
        return recipe
    saved = read_recipe(run.recipe)
    adopted = _adopt(recipe, saved)
    ours, theirs = flatten(adopted), flatten(saved)
    free = (*FREE, BASE) if is_moved else FREE
    differing = [key for key in sorted(ours | theirs) if ours.get(key) != theirs.get(key) and not key.startswith(free)]
    if differing:
        apart = "; ".join(line for key in differing for line in _apart(key, theirs.get(key), ours.get(key)))
        cure = f"to train this recipe, add {new_place(run.root)}"
        cure += (
            f"; {training_on(run)}"
            if run.summary.exists()
            else f"; to go on with that run, {train_command(saved, run)}"
        )
        if differing == [BASE] and ours[BASE].startswith("/"):
            cure += f"; if it is the same base in another place, add --base-path {shlex.quote(ours[BASE])}"
        what = f"the run in this folder was begun with another recipe than this one: {apart}"
        raise RunError(what, where=str(run.root), cure=cure)
    return adopted


def check_owned(recipe: Recipe, *, base_path: Path | None) -> None:
    """Raises RunError where the recipe's run folder belongs to another recipe, or holds something else, and where a
    base is said to have moved of a run that has not begun.
    """
    run = RunDir(Path(recipe.output.dir))
    check_run_exists(run, base_path)
    settled_recipe(recipe, run, is_moved=base_path is not None)


def training_on(run: RunDir) -> str:
    """What trains the adapter of a finished run further, as a cure."""
    start = shlex.quote(f"lora.init_from={run.root.resolve()}")
    return f"to train its adapter on, add {start} {new_place(run.root)}"


def train_command(recipe: Recipe, run: RunDir, *, options: str = "") -> str:
    """The command that goes on with a run in its folder, even where that was moved since; `recipe` is its own."""
    is_moved = Path(recipe.output.dir).resolve() != run.root.resolve()
    here = f" {shlex.quote(f'output.dir={run.root.resolve()}')}" if is_moved else ""
    consent = " --trust-remote-code" * recipe.model.trust_remote_code
    return f"`fledge train {shlex.quote(str(run.recipe))}{here}{options}{consent}`"


def _apart(key: str, theirs: Any, ours: Any) -> Iterator[str]:
    """Where two values of a recipe's key differ, a line for each option in them that does."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in dict.fromkeys((*theirs, *ours)):
            yield from _apart(f"{key}.{name}", theirs.get(name), ours.get(name))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for place, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from _apart(f"{key}.{place}", *pair)
    elif theirs != ours:
        yield f"{key} is {flow(theirs)} there and {flow(ours)} here"


def _check_is_free(run: RunDir) -> None:
    """A folder with files that are not a run's is left alone."""
    if run.root.is_dir() and any(not path.name.startswith(".") for path in run.root.iterdir()):
        if run.events.exists():
            return
        names = sorted(path.name for path in run.root.iterdir() if not path.name.startswith("."))
        held = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        cure = f"add {new_place(run.root)}, or remove what lies there"
        raise RunError(f"this folder holds files that are no run's: {held}", where=str(run.root), cure=cure)


def _adopt(recipe: Recipe, saved: Recipe) -> Recipe:
    known = flatten(saved)
    changes: dict[str, dict[str, Any]] = {}
    if recipe.lora.init_from is not None and recipe.lora.init_from == saved.lora.init_from:
        # its folder may be gone: whatever was taken from it then and is not written now is in the saved recipe
        taken = [name for name in FROM_ADAPTER if name not in recipe.lora.model_fields_set]
        changes["lora"] = {name: getattr(saved.lora, name) for name in taken}
    for key in SETTLED:
        if flatten(recipe)[key] in ("auto", None):
            section, name = key.split(".")
            changes.setdefault(section, {})[name] = known[key]
    return with_changes(recipe, changes)


def with_changes(recipe: Recipe, changes: dict[str, dict[str, Any]]) -> Recipe:
    """The recipe with some fields of some sections replaced."""
    sections = {name: getattr(recipe, name).model_copy(update=fields) for name, fields in changes.items()}
    return recipe.model_copy(update=sections)


def flatten(recipe: Recipe) -> dict[str, Any]:
    """`section.key` to value; values below a section stay as they are."""
    body = recipe.model_dump(mode="json")
    return {f"{section}.{key}": value for section, fields in body.items() for key, value in fields.items()}
