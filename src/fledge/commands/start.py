"""The adapter that a training starts from (`lora.init_from`), and what is said of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fledge.adapters.read import Start, read_start
from fledge.commands.manifest import START, base_digest, files_noted, hub_digest, is_same_base, read_manifest
from fledge.config.adapter_file import adapter_in, is_adapter_folder
from fledge.config.dump import scalar
from fledge.config.recipe import Recipe
from fledge.config.start import FROM_ADAPTER
from fledge.errors import FledgeError, ModelError, RunError
from fledge.events import Event, Notice
from fledge.models.load_tokenizer import saved_tokenizer
from fledge.models.tokenizer import Tokenizer
from fledge.rundir import RunDir, new_place


def start_of(recipe: Recipe, run: RunDir) -> Start | None:
    """What the adapter is made of before the run's checkpoint, if it has one, is loaded; None for a fresh adapter.

    A run that has a checkpoint needs nothing of the adapter that it started from: the checkpoint's own adapter says
    which layers there are. Raises RunError where the adapter is gone and there is no checkpoint yet, ModelError where
    it cannot be trained further.
    """
    if recipe.lora.init_from is None:
        return None
    if steps := run.checkpoint_steps():
        return read_start(run.checkpoint(steps[-1]) / "adapter")
    folder = Path(recipe.lora.init_from)
    if not folder.is_dir():
        what = "the adapter that this run starts from is gone, and the run has no checkpoint yet"
        cure = f"put it back, or add lora.init_from=RUN {new_place(run.root)}: {run.root} has no step of use"
        raise RunError(f"{what}: {folder}", where="lora.init_from", cure=cure)
    return read_start(adapter_in(folder))


def digest_of_start(recipe: Recipe) -> dict[str, str] | None:
    """The hashes of the adapter that a recipe starts from, as they are now; None where there is none, or it is gone."""
    if recipe.lora.init_from is None or not is_adapter_folder(adapter_in(Path(recipe.lora.init_from))):
        return None
    try:
        return read_start(adapter_in(Path(recipe.lora.init_from))).digest
    except ModelError:
        return {"weights": "cannot be read"}


def noted_start(start: Start | None, run: RunDir, *, before: dict[str, Any]) -> dict[str, str] | None:
    """The hashes for the manifest. With a checkpoint those of the first start hold: it is not read from there again."""
    if start is None or not run.checkpoint_steps():
        return None if start is None else start.digest
    found = before.get("hashes", {}).get(START)
    return found if isinstance(found, dict) else None


def check_words(start: Start, tokenizer: Tokenizer) -> tuple[str, ...]:
    """What is to be said of the tokenizer that lies beside an adapter.

    Raises ModelError where it cannot be read, and where it gives one of the tokens whose rows the adapter trains
    another meaning than this one.
    """
    rows = sorted(start.described.token_rows)
    beyond = [row for row in rows if row >= tokenizer.size]
    where, cure = (
        str(start.folder),
        "take data.new_tokens and data.new_special_tokens that the adapter was trained with",
    )
    if beyond:
        what = f"this adapter trains rows of {len(beyond)} tokens that this tokenizer has not, the first {beyond[0]}"
        raise ModelError(what, where=where, cure=f"{cure}, in their order")
    if not (start.folder / "tokenizer.json").is_file():
        return ()
    try:
        beside = saved_tokenizer(start.folder)
    except Exception as error:  # the library raises Exception itself for a broken file
        cure = "put back the tokenizer of the adapter, or take its files out of the folder: then nothing is compared"
        raise ModelError(f"the tokenizer beside the adapter cannot be read: {error}", where=where, cure=cure) from error
    words, theirs = (each.hf.convert_ids_to_tokens(rows) for each in (tokenizer, beside))
    other = next((place for place, pair in enumerate(zip(words, theirs, strict=True)) if pair[0] != pair[1]), None)
    if other is not None:
        what = f"row {rows[other]} of this adapter is of the token {theirs[other]!r}, and here of {words[other]!r}"
        raise ModelError(what, where=where, cure=f"{cure}, in their order")
    if beside.digest == tokenizer.digest:
        return ()
    is_template = beside.rules == tokenizer.rules and beside.hf.chat_template != tokenizer.hf.chat_template
    what = "chat template" if is_template else "tokenizer, or its chat template,"
    return (f"the {what} beside the adapter {start.folder} is another one than this recipe trains with",)


def tell_start(
    recipe: Recipe, start: Start, *, steps: int, words: tuple[str, ...], tell: Callable[[Event], None]
) -> None:
    """Say what training starts from, that its schedule begins anew, and what the adapter says otherwise."""
    lora, train = recipe.lora, recipe.train
    ends = lora.target_modules
    ends = ends if isinstance(ends, str) else tuple(dict.fromkeys(name.rpartition(".")[2] for name in ends))
    values = {name: getattr(lora, name) for name in FROM_ADAPTER} | {"target_modules": ends}
    shape = ", ".join(f"{name} {scalar(value)}" for name, value in values.items())
    text = f"training starts from the adapter {start.folder} (sha256 {start.digest['weights'][:12]}): {shape}"
    schedule = f"the {train.lr_scheduler} schedule of the learning rate, {train.learning_rate:g} at its peak,"
    tell(Notice(text=f"{text}; the optimiser starts anew, and so does {schedule} over {steps:,} steps"))
    for said in (*start.described.notices, *_of_base(recipe, start), *words):
        tell(Notice(text=said))


def _of_base(recipe: Recipe, start: Start) -> tuple[str, ...]:
    """What is to be said where the adapter was trained on another base than the recipe's, as far as can be known."""
    ours, theirs = recipe.model.name_or_path, start.described.base
    try:
        noted = read_manifest(RunDir(start.folder.parent).manifest).get("hashes", {}).get("base")
        local = base_digest(ours)
        now = hub_digest(ours, revision=recipe.model.revision) if local is None else local
    except FledgeError:
        noted = now = None
    can_tell = bool(files_noted(noted) and files_noted(now))
    if can_tell and not is_same_base(noted, now):
        return (f"the base {ours} has other weights than the one that this adapter was trained on",)
    if not can_tell and theirs not in (None, ours):
        return (f"the adapter names the base {theirs}; here it is put on {ours}, and only the shapes were compared",)
    return ()
