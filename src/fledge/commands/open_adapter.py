"""Opens what a person gives to a verb: a run folder, or the folder of an adapter in peft's format by itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fledge.adapters.read import file_digest, read_start
from fledge.commands.base_of_adapter import BaseFound, base_of
from fledge.commands.given import is_run, recipe_given
from fledge.commands.layout import choose_layout
from fledge.commands.open_run import OpenRun, Plain, Tuned, open_run
from fledge.commands.opening import Opening
from fledge.commands.ownership import with_changes
from fledge.commands.start import check_words
from fledge.commands.trials import Ids, make_trials
from fledge.config.adapter_file import Described, describe_adapter
from fledge.config.data import DataConfig, SourceConfig
from fledge.config.model import ModelConfig
from fledge.config.output import OutputConfig
from fledge.config.recipe import Recipe
from fledge.data.store import TokenStore
from fledge.models.load_tokenizer import declared_dtype, load_tokenizer
from fledge.rundir import RunDir

_TOKENS = 2048
"""Of a micro-batch, where the recipe leaves that to the machine: nothing is kept for a backward pass."""
_NOT_COMPARED = "this adapter is opened by itself and not as a run's: it is compared with no training"


def open_tuned(given: Path | str, opening: Opening | None = None) -> OpenRun:
    """The run in a folder, or the plain adapter.

    Raises RunError, ModelError or RecipeError where it cannot be opened, and FledgeError for an option without effect.
    """
    folder, opening = Path(given), opening or Opening()
    if is_run(folder, opening):
        return _open_run(folder, opening)
    return _open_adapter(folder.resolve(), opening)


def _open_run(folder: Path, opening: Opening) -> OpenRun:
    code, base_path = opening.trust_remote_code, opening.base_path
    return open_run(folder, which=opening.chosen, trust_remote_code=code, base_path=base_path)


def _open_adapter(folder: Path, opening: Opening) -> OpenRun:
    described = describe_adapter(folder)
    recipe_path = None if opening.recipe is None else Path(opening.recipe)
    asked = recipe_given(opening)
    name = None if asked is None else asked.model.name_or_path
    base = base_of(described, asked=name, recipe=recipe_path, base_path=opening.base_path)
    model = _model_of(described, asked, base, opening)
    data = DataConfig(train=SourceConfig(path=str(folder), format="text")) if asked is None else asked.data
    beside = folder if any((folder / each).is_file() for each in ("tokenizer.json", "tokenizer_config.json")) else None
    tokenizer = load_tokenizer(model, data, beside=beside)
    words = check_words(read_start(folder), tokenizer)
    notices = [_NOT_COMPARED, base.said, *described.notices, *words]
    if asked is None:
        how = (
            "go through the tokenizer's chat template" if tokenizer.has_chat_template else "go to the model as they are"
        )
        notices.append(f"without --recipe prompts {how}, and weights are held in {model.dtype}, as the base has them")
        form = SourceConfig(path=str(folder), format="chat" if tokenizer.has_chat_template else "text")
        recipe = Recipe(model=model, data=DataConfig(train=form), output=OutputConfig(dir=str(folder)))
    else:
        recipe = _settled(asked.model_copy(update={"model": model}))
    plain, sha256 = Plain(base.called, recipe_path), file_digest(folder)
    return OpenRun(
        RunDir(folder), recipe, folder, sha256, tokenizer, tuple(notices), plain=plain, base_path=opening.base_path
    )


def _settled(recipe: Recipe) -> Recipe:
    """The recipe with what `auto` leaves to a training: the library's modules compute, each row padded by itself."""
    train, data = recipe.train, recipe.data
    changes: dict[str, Any] = {"engine": "plain", "share_prefixes": False, "gradient_checkpointing": False}
    if train.micro_batch_tokens == "auto":
        changes["micro_batch_tokens"] = max(_TOKENS, data.max_length + data.max_target_length)
    return with_changes(recipe, {"train": changes, "data": {"packing": False}})


def with_layout(opened: OpenRun, tuned: Tuned, *, store: TokenStore) -> OpenRun:
    """The plain adapter with its rows padded where that changes nothing of what a row gives on this model, else each
    row computed alone, which is said.
    """
    tokenizer = opened.tokenizer
    ids = Ids(tokenizer.pad_token_id, tokenizer.decoder_start_id)
    trials = make_trials(tuned.model, tuned.facts, stores=[store], ids=ids)
    free = with_changes(opened.recipe, {"train": {"micro_batch_rows": None, "micro_batch_tokens": "auto"}})
    chosen = choose_layout(free, tuned.model, facts=tuned.facts, trials=trials)
    if chosen.layout == "padded":
        return opened
    recipe = with_changes(opened.recipe, {"train": {"micro_batch_rows": 1}})
    return replace(opened, recipe=recipe, notices=(*opened.notices, chosen.notice))


def _model_of(described: Described, asked: Recipe | None, base: BaseFound, opening: Opening) -> ModelConfig:
    code = opening.trust_remote_code
    model = ModelConfig(name_or_path=base.name, trust_remote_code=code) if asked is None else asked.model
    changes = {"name_or_path": base.name}
    is_on_hub = not base.called.startswith(("/", "builtin:"))
    if is_on_hub and (asked is None or base.called != base.name):  # the name is the adapter's, and so is the revision
        changes["revision"] = described.revision or "main"
    model = model.model_copy(update=changes)
    return model if asked is not None else model.model_copy(update={"dtype": declared_dtype(model) or model.dtype})
