"""Opens what a person gives to a verb: a run folder, or an adapter in peft's format that no run of Fledge wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.adapters.read import file_digest, read_start
from fledge.commands.consent import check_recipe, with_consent
from fledge.commands.manifest import base_digest
from fledge.commands.open_run import OpenRun, Plain, Which, open_run
from fledge.commands.ownership import with_changes
from fledge.commands.start import check_words
from fledge.config.adapter_file import Described, describe_adapter, is_adapter_folder
from fledge.config.data import DataConfig, SourceConfig
from fledge.config.load import load_recipe
from fledge.config.model import ModelConfig
from fledge.config.output import OutputConfig
from fledge.config.recipe import Recipe
from fledge.errors import FledgeError, RunError
from fledge.models.load_tokenizer import declared_dtype, load_tokenizer
from fledge.models.locate import BUILTIN
from fledge.rundir import RunDir

_TOKENS = 2048
"""Of a micro-batch, where the recipe leaves that to the machine: nothing is kept for a backward pass."""
_NOT_COMPARED = "no run of Fledge wrote this adapter, so base, tokenizer and rows are compared with no training"


@dataclass(frozen=True, slots=True)
class WithRecipe:
    """An adapter's folder, and the recipe that gives rows and formats, and where it is needed the base."""

    folder: Path | str
    recipe: Path | str


Given = Path | str | WithRecipe
"""A run folder, an adapter's folder, or an adapter's folder with a recipe."""


def open_tuned(given: Given, *, which: Which = "last", trust_remote_code: bool = False) -> OpenRun:
    """The run in a folder, or the plain adapter.

    Raises RunError, ModelError or RecipeError where it cannot be opened, and FledgeError for an option without effect.
    """
    folder = Path(given.folder if isinstance(given, WithRecipe) else given)
    recipe = Path(given.recipe) if isinstance(given, WithRecipe) else None
    if RunDir(folder).recipe.is_file() and not is_adapter_folder(folder):
        if recipe is not None:
            what, cure = f"has no effect: {folder} is a run, which has its own recipe", "leave --recipe away"
            raise FledgeError(what, where="--recipe", cure=cure)
        return open_run(folder, which=which, trust_remote_code=trust_remote_code)
    around = RunDir(folder.parent)  # which may be somebody's own folder, with a recipe of that name
    is_of_run = folder.name == "adapter" and around.recipe.is_file() and around.events.is_file()
    if recipe is None and (is_of_run or not is_adapter_folder(folder)):
        return open_run(folder, which=which, trust_remote_code=trust_remote_code)
    if which != "last":
        what = f"has no effect: {folder} is one adapter, and no run that has several"
        raise FledgeError(what, where="--which", cure="leave --which away")
    return _open_adapter(folder.resolve(), recipe, trust_remote_code=trust_remote_code)


def _open_adapter(folder: Path, recipe_path: Path | None, *, trust_remote_code: bool) -> OpenRun:
    described = describe_adapter(folder)
    asked = _recipe_of(recipe_path, trust_remote_code=trust_remote_code)
    name, said = _base_of(described, asked, recipe_path)
    model = _model_of(described, asked, name, trust_remote_code=trust_remote_code)
    data = DataConfig(train=SourceConfig(path=str(folder), format="text")) if asked is None else asked.data
    beside = folder if any((folder / each).is_file() for each in ("tokenizer.json", "tokenizer_config.json")) else None
    tokenizer = load_tokenizer(model, data, beside=beside)
    words = check_words(read_start(folder), tokenizer)
    notices = [_NOT_COMPARED, *said, *described.notices, *words]
    if asked is None:
        how = (
            "go through the tokenizer's chat template" if tokenizer.has_chat_template else "go to the model as they are"
        )
        notices.append(f"without --recipe prompts {how}, and weights are held in {model.dtype}, as the base has them")
        form = SourceConfig(path=str(folder), format="chat" if tokenizer.has_chat_template else "text")
        recipe = Recipe(model=model, data=DataConfig(train=form), output=OutputConfig(dir=str(folder)))
    else:
        recipe = _settled(asked.model_copy(update={"model": model}))
    plain = Plain(recipe_path)
    return OpenRun(RunDir(folder), recipe, folder, file_digest(folder), tokenizer, tuple(notices), plain)


def _recipe_of(path: Path | None, *, trust_remote_code: bool) -> Recipe | None:
    if path is None:
        return None
    settings = with_consent((), trust_remote_code=trust_remote_code)
    recipe = load_recipe(path, settings)
    check_recipe(recipe, path=path, overrides=settings)
    return recipe


def _settled(recipe: Recipe) -> Recipe:
    """The recipe with what `auto` leaves to a training: the library's modules compute, each row padded by itself."""
    train, data = recipe.train, recipe.data
    changes: dict[str, Any] = {"engine": "plain", "share_prefixes": False, "gradient_checkpointing": False}
    if train.micro_batch_tokens == "auto":
        changes["micro_batch_tokens"] = max(_TOKENS, data.max_length + data.max_target_length)
    return with_changes(recipe, {"train": changes, "data": {"packing": False}})


def _model_of(described: Described, asked: Recipe | None, name: str, *, trust_remote_code: bool) -> ModelConfig:
    if asked is not None:
        return asked.model.model_copy(update={"name_or_path": name})
    is_on_hub = not name.startswith(("/", "builtin:"))
    revision = described.revision if is_on_hub and described.revision else "main"
    model = ModelConfig(name_or_path=name, revision=revision, trust_remote_code=trust_remote_code)
    return model.model_copy(update={"dtype": declared_dtype(model) or model.dtype})


def _base_of(described: Described, asked: Recipe | None, path: Path | None) -> tuple[str, list[str]]:
    """The base to be loaded, and what is said of it: the adapter's, or the recipe's where that cannot be told to be
    another one. Raises RunError where the two name different bases, and where neither names one that is there.
    """
    named, ours = described.base, None if asked is None else asked.model.name_or_path
    found = _local(named) if named is not None else None
    is_id = named is not None and found is None and not named.startswith(("/", ".", "~", "builtin:"))
    if ours is None:
        if found is None and not is_id:
            what = f"its base, {named}, is not there" if named else "its settings do not name its base"
            cure = "give a recipe whose model.name_or_path is the base: --recipe RECIPE"
            raise RunError(f"this adapter cannot be opened: {what}", where=str(described.folder), cure=cure)
        base = found or str(named)
        return base, [f"the base is {base}, as the adapter names it"]
    if named is None or (found is None and not is_id):
        why = "names no base" if named is None else f"names the base {named}, which is not there"
        return ours, [f"the adapter {why}: the recipe's is used, {ours}"]
    if _is_one(found or named, ours):
        return ours, [f"the base is {ours}"]
    is_ours_local = ours.startswith(("/", "builtin:"))
    if is_id and is_ours_local:  # a copy of it, as far as can be told without asking the hub
        return ours, [f"the adapter names the base {named}: the recipe's is used, {ours}, and only shapes are compared"]
    what = f"the adapter names the base {found or named}, and the recipe {ours}"
    cure = f"write model.name_or_path: {found or named} into {path}, or the base that the adapter was trained on into "
    raise RunError(what, where=str(path), cure=f"{cure}{described.folder / 'adapter_config.json'}")


def _local(name: str) -> str | None:
    """A base that lies on this machine, by its built-in name or an absolute path; None for anything else."""
    if name in BUILTIN:
        return name
    path = Path(name).expanduser()
    return str(path.resolve()) if (path / "config.json").is_file() else None


def _is_one(theirs: str, ours: str) -> bool:
    """Whether two names are of one base: the same place, or the same weights."""
    if theirs == ours:
        return True
    if not (theirs.startswith(("/", "builtin:")) and ours.startswith(("/", "builtin:"))):
        return False
    if "builtin:" not in theirs + ours and Path(theirs).resolve() == Path(ours).resolve():
        return True
    weights = base_digest(theirs)
    return bool(weights) and weights == base_digest(ours)
