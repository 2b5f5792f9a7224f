"""Opens a run folder that has been trained: its recipe, its adapter, its tokenizer, and the model they make."""

import contextlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fledge.adapters.save import file_digest, load_adapter
from fledge.commands.consent import check_consent
from fledge.commands.manifest import base_digest, versions
from fledge.config.load import read_recipe
from fledge.config.model import Dtype
from fledge.config.recipe import Recipe
from fledge.errors import ModelError, RunError
from fledge.facts import ModelFacts
from fledge.models.load import load_base
from fledge.models.load_tokenizer import saved_tokenizer
from fledge.models.tokenizer import DIGEST_KIND, Tokenizer, digest_of
from fledge.rundir import RunDir
from fledge.runtime.device import choose_device

Which = Literal["last", "best"]
Onto = Literal["trained", "dequantized", "full"]
_FILES = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json")
_READ_BY = ("transformers", "tokenizers")


@dataclass(frozen=True, slots=True)
class OpenRun:
    """What a run folder holds, nothing heavy loaded yet."""

    run: RunDir
    recipe: Recipe
    adapter: Path
    adapter_sha256: str
    """Of the file with the adapter's weights."""
    tokenizer: Tokenizer
    notices: tuple[str, ...] = ()
    """What a person should know before the run is used."""

    def trained_hash(self, name: str) -> Any:
        """A hash of what the run began with: `base`, `tokenizer_and_template` or `data`; None where none is noted."""
        return _noted(self.run.manifest).get("hashes", {}).get(name)


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


def open_run(folder: Path | str, *, which: Which = "last", trust_remote_code: bool = False) -> OpenRun:
    """The run in `folder` with its last adapter, or the best by validation loss.

    Code that comes with the base runs only with `trust_remote_code`: that the run's own recipe allows it is no consent,
    for a run folder may come from anybody. Raises RunError where this is no run folder, where it is not trained yet,
    where there was no validation, where adapter or tokenizer are not those that this run trained, or where the base
    needs code and nobody has allowed it.
    """
    run = RunDir(Path(folder))
    if not run.recipe.is_file():
        near = RunDir(run.root.parent)
        cure = (
            f"the run folder is {near.root}" if near.recipe.is_file() else "give the folder that `fledge train` wrote"
        )
        raise RunError("this is not a run folder: it has no recipe.yaml", where=str(run.root), cure=cure)
    recipe = read_recipe(run.recipe)
    check_consent(recipe, where=str(run.recipe), trust_remote_code=trust_remote_code)
    adapter = run.best if which == "best" else run.adapter
    missing = [name for name in _FILES if not (adapter / name).is_file()]
    if missing:
        raise _not_there(run, recipe, which, missing)
    sha256 = file_digest(adapter)
    noted = _noted(adapter / "best.json" if which == "best" else run.summary).get("adapter_file_sha256", sha256)
    if sha256 != noted:
        what = "this is not the adapter that the run trained: its weights file has another sha256 than was noted"
        raise RunError(what, where=str(adapter), cure=f"put the run's own adapter back, or {_anew(run, recipe, which)}")
    cure = f"put back the tokenizer that was saved with the adapter, or {_anew(run, recipe, which)}"
    tokenizer, notices = _own_tokenizer(run, adapter, cure=cure, trust_remote_code=trust_remote_code)
    return OpenRun(run, recipe, adapter, sha256, tokenizer, notices)


def _own_tokenizer(
    run: RunDir, adapter: Path, *, cure: str, trust_remote_code: bool
) -> tuple[Tokenizer, tuple[str, ...]]:
    """The tokenizer beside the adapter, which is the one that the manifest names, and what is to be said of it.

    Raises RunError where it cannot be read, where its files are others than those that were saved, and where they read
    text otherwise than then.
    """
    try:
        tokenizer = saved_tokenizer(adapter, trust_remote_code=trust_remote_code)
        rules = (adapter / "tokenizer.json").read_text(encoding="utf-8")
        filed = digest_of(rules, template=tokenizer.hf.chat_template, special_tokens=tokenizer.hf.special_tokens_map)
    except Exception as error:  # the library raises Exception itself for a broken file, and own code whatever it likes
        needs_code = "trust_remote_code" in str(error)
        reason = "it names code, which this run was trained without" if needs_code else error
        raise RunError(f"the run's tokenizer cannot be read: {reason}", where=str(adapter), cure=cure) from error
    manifest = _noted(run.manifest)
    trained = manifest.get("hashes", {}).get("tokenizer_and_template")
    if trained is None or trained in (tokenizer.digest, tokenizer.first_identity):
        return tokenizer, ()
    if not str(trained).startswith(DIGEST_KIND):
        what = "this run was made by an older Fledge, which may have saved another tokenizer than it trained with"
        return tokenizer, (f"{what}: whether this one reads text alike cannot be told from its manifest",)
    if trained != filed:
        what = "the tokenizer beside the adapter, or its chat template, is not the one that the run trained with"
        raise RunError(what, where=str(adapter), cure=cure)
    before, now = manifest.get("versions", {}), versions()
    changed = [
        f"{name} {before[name]}, now {now[name]}" for name in _READ_BY if before.get(name, now[name]) != now[name]
    ]
    if changed:
        return tokenizer, (f"the tokenizer was saved by {'; '.join(changed)}, and may read text otherwise",)
    what = "the tokenizer beside the adapter is loaded as another one than its tokenizer.json says"
    raise RunError(what, where=str(adapter), cure=cure)


def _noted(path: Path) -> dict[str, Any]:
    """What a run has written down in a JSON file of its own; nothing where there is no such file."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        cure = "put back the file that the training wrote"
        raise RunError(f"this file of the run cannot be read: {error}", where=str(path), cure=cure) from error


def _anew(run: RunDir, recipe: Recipe, which: Which) -> str:
    """What writes a damaged adapter anew: the last one comes out of the last checkpoint, the best one is lost."""
    if which == "best":
        return "use the last one: leave out --which best"
    return _go_on(run, recipe).replace("goes on with it", "writes it anew from the last checkpoint")


def _go_on(run: RunDir, recipe: Recipe) -> str:
    """What goes on with this run, in this folder even where it was moved since."""
    moved = Path(recipe.output.dir).resolve() != run.root.resolve()
    here = f" output.dir={shlex.quote(str(run.root.resolve()))}" if moved else ""
    consent = " --trust-remote-code" * recipe.model.trust_remote_code
    return f"`fledge train {shlex.quote(str(run.recipe))}{here}{consent}` goes on with it"


def _not_there(run: RunDir, recipe: Recipe, which: Which, missing: list[str]) -> RunError:
    if which == "best":
        cure = "use the last one: leave out --which best"
        if recipe.data.validation is None:
            cure = "leave out --which best: a run without data.validation has no best"
        return RunError("there is no best adapter", where=str(run.best), cure=cure)
    if run.adapter.is_dir():
        what = f"the adapter lacks {', '.join(missing)}"
        return RunError(what, where=str(run.adapter), cure=_go_on(run, recipe))
    steps = run.checkpoint_steps()
    state = f"it stopped after step {steps[-1]}" if steps and steps[-1] else "it has no adapter yet"
    return RunError(
        f"this run is not trained to its end: {state}",
        where=str(run.root),
        cure=_go_on(run, recipe),
    )


def load_tuned(opened: OpenRun, *, dtype: Dtype | None = None, kind: Onto = "trained") -> Tuned:
    """The base with the run's adapter, on a GPU where there is one unless the recipe says cpu.

    `dtype` is for the base, the recipe's where None. `kind` is how a quantised base is held: as in the training; as
    plain modules with the weights that it stands for; or as it came, in full precision. Raises RunError where the base
    is not the one that was trained.
    """
    model = opened.recipe.model
    _check_same_base(opened)
    device = choose_device("cpu" if model.placement == "cpu" else "auto")
    held = {"quantization": "none"} if kind == "full" else {}
    asked = model.model_copy(update={"dtype": dtype or model.dtype} | held)
    base = load_base(asked, device=device, as_plain=kind == "dequantized")
    _check_same_base(opened, commit=getattr(base.model.config, "_commit_hash", None))
    try:
        tuned = load_adapter(base.model, opened.adapter)
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


def _check_same_base(opened: OpenRun, *, commit: str | None = None) -> None:
    """A local base's weights files, or a hub id's commit once known, are compared with those the run began with."""
    trained_on = opened.trained_hash("base")
    now = base_digest(opened.recipe.model.name_or_path) or ({"commit": commit} if commit else None)
    if trained_on is not None and now is not None and trained_on != now:
        name = opened.recipe.model.name_or_path
        cure = "put back the base that it was trained on"
        raise RunError(
            f"the base {name} has changed since this adapter was trained", where=str(opened.run.root), cure=cure
        )
