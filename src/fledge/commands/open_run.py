"""Opens a run folder that has been trained: its recipe, its adapter, its tokenizer, and the model they make."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fledge.adapters.save import load_adapter
from fledge.commands.consent import check_consent
from fledge.commands.finished import ADAPTER_FILES, going_on, mending, own_adapter
from fledge.commands.given import check_is_run
from fledge.commands.manifest import base_digest, hub_digest, is_same_base, read_manifest, read_object
from fledge.commands.moved import check_there, name_of_base, noted_base, placed, unproven
from fledge.commands.opening import Which
from fledge.commands.progress import Say, say_nothing
from fledge.config.load import read_recipe
from fledge.config.model import Dtype, ModelConfig
from fledge.config.recipe import Recipe
from fledge.errors import ModelError, RunError
from fledge.facts import ModelFacts
from fledge.models.load import load_base
from fledge.models.tokenizer import Tokenizer
from fledge.rundir import RunDir
from fledge.runtime.device import choose_device

Onto = Literal["trained", "dequantized", "full"]


@dataclass(frozen=True, slots=True)
class Plain:
    """Of an adapter that lies in no run: what its base is called in what is written for others, and the recipe that was
    given with it, if one was.
    """

    base_name: str
    recipe: Path | None = None


@dataclass(frozen=True, slots=True)
class OpenRun:
    """What a run folder holds, nothing heavy loaded yet."""

    run: RunDir
    recipe: Recipe
    """It names the base by where it is loaded from."""
    adapter: Path
    adapter_sha256: str
    """Of the file with the adapter's weights."""
    tokenizer: Tokenizer
    notices: tuple[str, ...] = ()
    """What a person should know before the run is used."""
    plain: Plain | None = None
    """Where the folder holds an adapter that no run wrote."""
    base_path: Path | str | None = None
    """Where the base was said to lie."""

    @property
    def recipe_path(self) -> Path:
        """Where the recipe lies, or the adapter that has none."""
        return self.run.recipe if self.plain is None else self.plain.recipe or self.adapter

    @property
    def base_name(self) -> str:
        """What the base is called in what is written for others."""
        return name_of_base(self.recipe, self.run) if self.plain is None else self.plain.base_name

    def trained_hash(self, name: str) -> Any:
        """A hash of what the run began with: `base`, `tokenizer_and_template` or `data`; None where none is noted."""
        return None if self.plain is not None else read_manifest(self.run.manifest).get("hashes", {}).get(name)


@dataclass(frozen=True, slots=True)
class Tuned:
    """A base with a run's adapter, in eval mode."""

    model: Any
    """peft's model"""
    facts: ModelFacts
    device: torch.device

    def as_base(self, *, when: bool = True) -> contextlib.AbstractContextManager[Any]:
        """For a while the model is the base alone; not where `when` is False."""
        return self.model.disable_adapter() if when else contextlib.nullcontext()


def open_run(
    folder: Path | str,
    *,
    which: Which = "last",
    trust_remote_code: bool = False,
    base_path: Path | str | None = None,
) -> OpenRun:
    """The run in `folder` with its last adapter, or the best by validation loss.

    `base_path` is where the run's base lies now; the recipe in the run folder stays as it is.

    Code that comes with the base runs only with `trust_remote_code`: that the run's own recipe allows it is no consent,
    for a run folder may come from anybody. Raises RunError where this is no run folder, where it is not trained yet,
    where there was no validation, where adapter or tokenizer are not those that this run trained, where the base
    needs code and nobody has allowed it, or where `base_path` holds another base.
    """
    run = RunDir(Path(folder))
    check_is_run(run)
    recipe = placed(read_recipe(run.recipe), run, base_path=base_path)
    check_consent(recipe, where=str(run.recipe), trust_remote_code=trust_remote_code)
    adapter = run.best if which == "best" else run.adapter
    missing = [name for name in ADAPTER_FILES if not (adapter / name).is_file()]
    if missing:
        raise _not_there(run, recipe, which, missing)
    anew = _anew(run, recipe, which)
    noted = _noted(run, which, anew=anew)
    own = own_adapter(run, adapter, noted=noted, anew=anew, trust_remote_code=trust_remote_code)
    notices = (*own.notices, *unproven(run, base_path))
    return OpenRun(run, recipe, adapter, own.sha256, own.tokenizer, notices, base_path=base_path)


def _noted(run: RunDir, which: Which, *, anew: str) -> dict[str, Any]:
    """What the training noted of the files of an adapter."""
    cure = f"put back the file that the training wrote, or {anew}"
    if which == "last":
        return read_object(run.summary, cure=cure)
    settings = "settings_sha256"  # the same of all adapters of a run
    noted = read_object(run.summary, cure="put back the file that the training wrote, or leave out --which best")
    return read_object(run.best / "best.json", cure=cure) | {key: noted[key] for key in noted if key == settings}


def _anew(run: RunDir, recipe: Recipe, which: Which) -> str:
    """What helps where an adapter is damaged: the last one comes out of the checkpoints, the best one is lost."""
    return "use the last one: leave out --which best" if which == "best" else mending(recipe, run)


def _not_there(run: RunDir, recipe: Recipe, which: Which, missing: list[str]) -> RunError:
    if which == "best":
        cure = "use the last one: leave out --which best"
        if recipe.data.validation is None:
            cure = "leave out --which best: a run without data.validation has no best"
        return RunError("there is no best adapter", where=str(run.best), cure=cure)
    if run.adapter.is_dir() or run.summary.exists():
        what = f"the adapter lacks {', '.join(missing)}" if run.adapter.is_dir() else "the run's adapter is gone"
        cure = f"put it back from a copy, or {mending(recipe, run)}"
        return RunError(what, where=str(run.adapter), cure=cure)
    steps = run.checkpoint_steps()
    state = f"it stopped after step {steps[-1]}" if steps and steps[-1] else "it has no adapter yet"
    return RunError(
        f"this run is not trained to its end: {state}",
        where=str(run.root),
        cure=going_on(recipe, run),
    )


def load_tuned(opened: OpenRun, *, dtype: Dtype | None = None, kind: Onto = "trained", say: Say = say_nothing) -> Tuned:
    """The base with the run's adapter, on a GPU where there is one unless the recipe says cpu.

    `dtype` is for the base, the recipe's where None. `kind` is how a quantised base is held: as in the training; as
    plain modules with the weights that it stands for; or as it came, in full precision. `say` is told before it is
    read. Raises RunError where the base is gone, or is not the one that was trained.
    """
    model = opened.recipe.model
    check_base(opened)
    device = choose_device("cpu" if model.placement == "cpu" else "auto")
    held = {"quantization": "none"} if kind == "full" else {}
    asked = model.model_copy(update={"dtype": dtype or model.dtype} | held)
    say(f"reading the base {model.name_or_path}, {_held_in(asked, kind)}")
    base = load_base(asked, device=device, as_plain=kind == "dequantized")
    check_base(opened, is_loaded=True)
    try:
        tuned = load_adapter(base.model, opened.adapter, is_own=opened.plain is None)
    except ModelError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), str(error))
        raise RunError(
            f"this adapter does not fit its base, {model.name_or_path}: {reason}",
            where=str(opened.adapter),
            cure="put back the base that it was trained on, or the adapter of this run",
        ) from error
    return Tuned(tuned, base.facts, device)


def _held_in(asked: ModelConfig, kind: Onto) -> str:
    """How the weights of the base are held, in words."""
    how = {"none": "in"}.get(asked.quantization, f"in {asked.quantization}, computing in")
    return f"dequantised, in {asked.dtype}" if kind == "dequantized" else f"{how} {asked.dtype}"


def check_base(opened: OpenRun, *, is_loaded: bool = False) -> None:
    """Raises RunError where a local base is gone, or where a base's weights files, those of a hub id once it
    `is_loaded`, are others than those that the run began with. That of a plain adapter was compared when it was opened.
    """
    if opened.plain is not None:
        return
    model, trained_on = opened.recipe.model, noted_base(opened.run)
    check_there(opened.recipe, opened.run)
    now: dict[str, Any] | None = base_digest(model.name_or_path)
    if now is None and is_loaded:
        now = hub_digest(model.name_or_path, revision=model.revision)
    if trained_on is not None and now is not None and not is_same_base(trained_on, now):
        cure = "put back the base that it was trained on, or add --base-path FOLDER: where that one lies now"
        what = f"the base {model.name_or_path} has changed since this adapter was trained"
        raise RunError(what, where=str(opened.run.root), cure=cure)
