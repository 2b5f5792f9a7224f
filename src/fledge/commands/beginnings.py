"""What a run stands on, written down at its first start and compared at each later one."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from fledge.adapters.read import Start
from fledge.commands.manifest import changes_since, describe, is_same_base, read_manifest
from fledge.commands.moved import as_saved
from fledge.commands.start import noted_start
from fledge.config.load import dump_recipe
from fledge.config.recipe import Recipe
from fledge.data.pipeline import PreparedData
from fledge.errors import RunError
from fledge.events import Event, Notice
from fledge.models.tokenizer import DIGEST_KIND, Tokenizer
from fledge.rundir import RunDir, new_place, write_json, write_text

Tell = Callable[[Event], None]


def write_beginnings(
    recipe: Recipe,
    run: RunDir,
    *,
    tokenizer: Tokenizer,
    data: PreparedData,
    hardware: Mapping[str, Any],
    start: Start | None,
) -> None:
    """Write manifest, ledger and settled recipe. A manifest that is there stays as it is.

    Raises RunError where base, tokenizer, rows or the adapter to start from are not what the run began with.
    """
    before = read_manifest(run.manifest) if run.manifest.exists() else None
    manifest = describe(
        name_or_path=recipe.model.name_or_path,
        revision=recipe.model.revision,
        tokenizer=tokenizer.digest,
        data=data.digest,
        hardware=hardware,
        start=noted_start(start, run, before=before or {}),
    )
    if before is not None:
        if not str(before["hashes"].get("tokenizer_and_template")).startswith(DIGEST_KIND):
            manifest["hashes"]["tokenizer_and_template"] = tokenizer.first_identity
        if is_same_base(before["hashes"].get("base"), manifest["hashes"]["base"]):
            manifest["hashes"]["base"] = before["hashes"].get("base")
        _check_same_ground(before, manifest, run)
    else:
        write_json(run.manifest, manifest)
    write_json(run.ledger, data.ledger.as_json())
    write_text(run.recipe, dump_recipe(as_saved(recipe, run)))


def use_threads(run: RunDir, tell: Tell) -> None:
    """Use the thread count that the run began with, for the order of sums depends on it."""
    if not run.manifest.exists():
        return
    threads = read_manifest(run.manifest)["hardware"]["threads"]
    if torch.get_num_threads() != threads:
        tell(Notice(text=f"using {threads} threads, as this run began with, instead of {torch.get_num_threads()}"))
        torch.set_num_threads(threads)


def settle_machine(run: RunDir, hardware: Mapping[str, Any], *, tell: Tell) -> None:
    """Use the thread count that the run's first rank wrote down, and say what has changed since."""
    use_threads(run, tell)
    if changes := changes_since(read_manifest(run.manifest), hardware):
        tell(Notice(text=f"this run began with {'; '.join(changes)}: losses agree, last bits may not"))


def _check_same_ground(before: dict[str, Any], now: dict[str, Any], run: RunDir) -> None:
    changed = [name for name, value in before["hashes"].items() if value != now["hashes"].get(name)]
    if changed:
        raise RunError(
            f"{', '.join(changed)} changed since this run began",
            where=str(run.root),
            cure=f"put it back, or add {new_place(run.root)} to train anew",
        )
