"""A run that was trained to its end: whether it is whole still, what mends it, and whether its rows are the same."""

import hashlib
import json
import shlex
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.adapters.read import file_digest
from fledge.commands.manifest import START, base_digest, is_same_base, read_manifest, read_object, versions
from fledge.commands.moved import option_for
from fledge.commands.ownership import train_command, training_on
from fledge.commands.progress import OnPrepare
from fledge.commands.start import digest_of_start
from fledge.config.recipe import Recipe, names_a_hub
from fledge.data.pipeline import prepare_training
from fledge.errors import FledgeError, RunError
from fledge.models.load_tokenizer import load_tokenizer, saved_tokenizer
from fledge.models.tokenizer import DIGEST_KIND, Tokenizer, digest_of
from fledge.rundir import RunDir, new_place, read_events
from fledge.training.state import Progress

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json")
"""Without these a folder holds no adapter of a run."""
_SETTINGS = ("adapter_config.json", "generation_config.json")
_NO_SETTINGS = ("base_model_name_or_path", "revision", "transformers_version")
"""Keys of these files that say where the base lies, or who wrote them."""
_READ_BY = ("transformers", "tokenizers")
_WEIGHTS = "weights.safetensors"
_TENSORS = (_WEIGHTS, "optimizer.safetensors", "generators.safetensors")


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run: its summary, and what could not be compared with what it was trained on."""

    summary: dict[str, Any]
    note: str = ""


@dataclass(frozen=True, slots=True)
class OwnAdapter:
    """An adapter that is as its run wrote it."""

    sha256: str
    """Of the file with the weights."""
    tokenizer: Tokenizer
    notices: tuple[str, ...] = ()
    """What a person should know before it is used."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a run was trained to its end, and is whole still."""

    was_finished: bool = False
    damage: str = ""
    """What of a finished run is not as the training wrote it, and can be written anew."""
    summary: Mapping[str, Any] | None = None
    """What the training noted at its end; None where that cannot be read."""

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing left to do."""
        return self.was_finished and not self.damage and self.summary is not None


def standing(recipe: Recipe, run: RunDir) -> Standing:
    """How a run folder stands. Neither base nor rows are loaded.

    Raises RunError where a finished run is damaged and no checkpoint is left to write its adapter from: it is never
    trained again unasked.
    """
    if not run.summary.exists() and not run.adapter.exists():
        return Standing()
    summary = _summary_of(run)
    damage = _damage(recipe, run, summary) if run.summary.exists() else ""
    if run.summary.exists() and not damage:
        return Standing(was_finished=True, summary=summary)
    if lost := why_lost(recipe, run):
        what = (
            f"this run is finished, but {damage or 'the summary is gone'}, and that cannot be mended without training"
        )
        cure = f"put back the files from a copy, or {mending(recipe, run)}"
        raise RunError(f"{what}: {lost}", where=str(run.root), cure=cure)
    return Standing(was_finished=True, damage=damage, summary=summary)


def finished(recipe: Recipe, run: RunDir, *, summary: Mapping[str, Any], on_prepare: OnPrepare) -> Finished:
    """The run as it was finished, compared with what its recipe means now.

    The base is not loaded; the rows come out of the cache where they are there. Raises RunError where base, tokenizer
    or rows are not those that were trained. Where the recipe names a hub and the hub is out of reach, the note says
    that nothing was compared.
    """
    noted, kept = read_manifest(run.manifest), dict(summary)
    before = noted.get("hashes", {})
    try:
        now = _ground(recipe, on_prepare, before)
    except FledgeError as error:
        problem = error.problems[0]
        what = f"what this run was trained on cannot be read any more: {problem.what}"
        if names_a_hub(recipe):
            return Finished(kept, f"not compared with what was trained: {problem.what}")
        raise RunError(what, where=problem.where or str(run.root), cure=problem.cure or _cure_of([], run)) from error
    changed = [name for name, value in now.items() if name in before and value not in (None, before[name])]
    if changed:
        raise RunError(_told(changed, noted), where=str(run.root), cure=_cure_of(changed, run))
    return Finished(kept)


def _ground(recipe: Recipe, on_prepare: OnPrepare, before: dict[str, Any]) -> dict[str, Any]:
    """What the manifest notes of base, tokenizer and rows, as they are now."""
    tokenizer = load_tokenizer(recipe.model, recipe.data)
    data = prepare_training(recipe.data, tokenizer, seed=recipe.train.seed, progress=on_prepare)
    is_old = not str(before.get("tokenizer_and_template")).startswith(DIGEST_KIND)
    words = tokenizer.first_identity if is_old else tokenizer.digest
    base = base_digest(recipe.model.name_or_path)
    if is_same_base(before.get("base"), base):
        base = before.get("base")
    return {"base": base, "tokenizer_and_template": words, "data": data.digest, START: digest_of_start(recipe)}


def _cure_of(changed: list[str], run: RunDir) -> str:
    """What to do where something has changed since a run was trained; new rows are trained on from its adapter."""
    anew = f"put back what was trained on, or add {new_place(run.root)} to train anew"
    return f"{anew}; {training_on(run)}" if changed == ["data"] else anew


def _told(changed: list[str], noted: dict[str, Any]) -> str:
    names = {"base": "the base", "tokenizer_and_template": "the tokenizer or its template", "data": "the rows"}
    names[START] = "the adapter that it started from"
    what = " and ".join(names[name] for name in changed)
    verb = "have" if what.endswith("rows") or " and " in what else "has"
    text = f"this run is finished, and {what} {verb} changed since it was trained"
    old, new = noted.get("versions", {}), versions()
    updated = [f"{name} {old[name]}, now {new[name]}" for name in new if name in old and old[name] != new[name]]
    return f"{text} (it was trained with {'; '.join(updated)})" if updated else text


def own_adapter(
    run: RunDir, folder: Path, *, noted: Mapping[str, Any], anew: str, trust_remote_code: bool
) -> OwnAdapter:
    """The adapter in `folder` of a run: weights, settings, tokenizer and template are those that the training wrote.

    `noted` is what was noted of its files, `anew` the cure where there is no copy to put back. Raises RunError where
    something cannot be read or is another one.
    """
    settings = settings_digest(folder)
    if settings is None:
        cure = f"put back the file that was saved with the adapter, or {anew}"
        raise RunError("the settings of the adapter cannot be read", where=str(folder / _SETTINGS[0]), cure=cure)
    sha256, what = file_digest(folder), ""
    if noted.get("adapter_file_sha256", sha256) not in (None, sha256):
        what = "its weights file has another sha256 than was noted"
    elif noted.get("settings_sha256", settings) != settings:
        what = f"{' or '.join(_SETTINGS)} has other settings than were noted"
    if what:
        cure = f"put the run's own adapter back, or {anew}"
        raise RunError(f"this is not the adapter that the run trained: {what}", where=str(folder), cure=cure)
    cure = f"put back the tokenizer that was saved with the adapter, or {anew}"
    tokenizer, notices = _own_tokenizer(run, folder, cure=cure, trust_remote_code=trust_remote_code)
    return OwnAdapter(sha256, tokenizer, notices)


def settings_digest(folder: Path) -> str | None:
    """Digest of how an adapter is to be used, by its JSON files; None where they cannot be read.

    Where the base lies is left out.
    """
    found = []
    for name in _SETTINGS:
        if name != _SETTINGS[0] and not (folder / name).is_file():
            continue
        try:
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(settings, dict) or (name == _SETTINGS[0] and "peft_type" not in settings):
            return None
        found.append({key: value for key, value in settings.items() if key not in _NO_SETTINGS})
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


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
    manifest = read_manifest(run.manifest)
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
    what = "the tokenizer beside the adapter does not read text as it did in the training: its tokenizer.json is the"
    other = "same, but a file that goes with it, such as tokenizer_config.json, has changed"
    raise RunError(f"{what} {other}", where=str(adapter), cure=cure)


def adapter_step(recipe: Recipe, progress: Progress) -> int:
    """The step that a run's adapter is of: the last one, or with patience the best by validation loss."""
    keeps_best = recipe.evaluate.early_stopping_patience is not None and progress.best_step is not None
    return progress.best_step if keeps_best and progress.best_step is not None else progress.step


def why_lost(recipe: Recipe, run: RunDir) -> str:
    """Why the adapter of a finished run cannot be written anew without training; empty where it can."""
    steps, end = run.checkpoint_steps(), _last_step(run)
    if not steps:
        return "its checkpoints are gone"
    if end is not None and steps[-1] < end:
        return f"its last checkpoint is of step {steps[-1]:,} and it was trained to step {end:,}"
    folder = run.checkpoint(steps[-1])
    try:
        progress = Progress(**json.loads((folder / "state.json").read_text(encoding="utf-8"))["progress"])
    except (OSError, ValueError, TypeError, KeyError):
        return f"its last checkpoint is damaged: {folder / 'state.json'}"
    files = [folder / name for name in _TENSORS]
    if adapter_step(recipe, progress) != progress.step:
        files.append(run.best / _WEIGHTS)
    torn = next((path for path in files if not _is_whole(path)), None)
    return "" if torn is None else f"its checkpoints lack {torn.relative_to(run.root)}, or it is damaged"


def mending(recipe: Recipe, run: RunDir) -> str:
    """What gives a finished run its adapter back where nobody has a copy of it, as a cure."""
    if not why_lost(recipe, run):
        return f"{_train_again(recipe, run)} writes it anew from the last checkpoint"
    if twin := _twin(recipe, run):
        there, here = (shlex.quote(str(path.resolve())) for path in (twin, run.adapter))
        return f"`mkdir -p {here} && cp {there}/* {here}/`: the same adapter lies there too"
    return f"add {new_place(run.root)} to train anew: its checkpoints cannot give the adapter"


def going_on(recipe: Recipe, run: RunDir) -> str:
    """What goes on with this run, as a cure."""
    return f"{_train_again(recipe, run)} goes on with it"


def _train_again(recipe: Recipe, run: RunDir) -> str:
    """The command that trains into this folder, with the base where `recipe` has it."""
    return train_command(recipe, run, options=option_for(recipe, run))


def _twin(recipe: Recipe, run: RunDir) -> Path | None:
    """A folder among the checkpoints that holds the very adapter that the summary notes."""
    noted = _summary_of(run) or {}
    for folder in (run.best, *(run.checkpoint(step) / "adapter" for step in run.checkpoint_steps())):
        is_there = all((folder / name).is_file() for name in ADAPTER_FILES)
        if is_there and noted.get("adapter_file_sha256") == file_digest(folder):
            try:
                own_adapter(run, folder, noted=noted, anew="", trust_remote_code=recipe.model.trust_remote_code)
            except RunError:
                continue
            return folder
    return None


def _damage(recipe: Recipe, run: RunDir, summary: Mapping[str, Any] | None) -> str:
    """What of a finished run is not as the training wrote it; empty where all is."""
    if summary is None:
        return "the summary cannot be read"
    if missing := [name for name in ADAPTER_FILES if not (run.adapter / name).is_file()]:
        return f"the adapter lacks {', '.join(missing)}"
    read_manifest(run.manifest)
    try:
        own_adapter(run, run.adapter, noted=summary, anew="", trust_remote_code=recipe.model.trust_remote_code)
    except RunError as error:
        return error.problems[0].what
    return ""


def _summary_of(run: RunDir) -> dict[str, Any] | None:
    """The summary; None where it cannot be read."""
    try:
        summary = read_object(run.summary)
    except RunError:
        return None
    return summary if "steps" in summary else None


def _last_step(run: RunDir) -> int | None:
    """The step that a finished run came to; None where nothing tells it."""
    noted = (_summary_of(run) or {}).get("steps")
    if isinstance(noted, int):
        return noted
    try:
        ends = [event["step"] for event in read_events(run.events) if event["event"] == "finished"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return int(ends[-1]) if ends else None


def _is_whole(path: Path) -> bool:
    """Whether a file of tensors is as long as its own header says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            [length] = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length < size else {}
        ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
    except (OSError, ValueError, struct.error, AttributeError, TypeError, LookupError):
        return False
    return bool(size == 8 + length + max(ends, default=0))
