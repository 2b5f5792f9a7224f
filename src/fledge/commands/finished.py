"""A run that was trained to its end: whether it is whole still, and whether its recipe still means the same rows."""

import json
from dataclasses import dataclass
from typing import Any

from fledge.adapters.save import file_digest, is_adapter
from fledge.commands.manifest import base_digest, versions
from fledge.commands.progress import OnPrepare
from fledge.config.recipe import Recipe, names_a_hub
from fledge.data.pipeline import prepare_training
from fledge.errors import FledgeError, RunError
from fledge.models.load_tokenizer import load_tokenizer, saved_tokenizer
from fledge.models.tokenizer import DIGEST_KIND
from fledge.rundir import RunDir

_CURE = "put back what was trained on, or choose another output.dir to train anew"


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run: its summary, and what could not be compared with what it was trained on."""

    summary: dict[str, Any]
    note: str = ""


def finished(recipe: Recipe, run: RunDir, *, on_prepare: OnPrepare) -> Finished | None:
    """The run as it was finished; None where it was not, or where its adapter or summary are damaged.

    The base is not loaded; the rows come out of the cache where they are there. Raises RunError where base, tokenizer
    or rows are not those that were trained. Where the recipe names a hub and the hub is out of reach, the note says
    that nothing was compared.
    """
    summary = _whole_summary(run, trust_remote_code=recipe.model.trust_remote_code)
    if summary is None:
        return None
    noted = json.loads(run.manifest.read_text(encoding="utf-8")) if run.manifest.is_file() else {}
    try:
        now = _ground(recipe, on_prepare, noted.get("hashes", {}))
    except FledgeError as error:
        problem = error.problems[0]
        what = f"what this run was trained on cannot be read any more: {problem.what}"
        if names_a_hub(recipe):
            return Finished(summary, f"not compared with what was trained: {problem.what}")
        raise RunError(what, where=problem.where or str(run.root), cure=problem.cure or _CURE) from error
    before = noted.get("hashes", {})
    changed = [name for name, value in now.items() if name in before and value not in (None, before[name])]
    if changed:
        raise RunError(_told(changed, noted), where=str(run.root), cure=_CURE)
    return Finished(summary)


def is_damaged(run: RunDir, *, trust_remote_code: bool) -> bool:
    """Whether a run was finished and its adapter or its summary is not as the training wrote them."""
    return run.summary.exists() and _whole_summary(run, trust_remote_code=trust_remote_code) is None


def _ground(recipe: Recipe, on_prepare: OnPrepare, before: dict[str, Any]) -> dict[str, Any]:
    """What the manifest notes of base, tokenizer and rows, as they are now."""
    tokenizer = load_tokenizer(recipe.model, recipe.data)
    data = prepare_training(recipe.data, tokenizer, seed=recipe.train.seed, progress=on_prepare)
    is_old = not str(before.get("tokenizer_and_template")).startswith(DIGEST_KIND)
    words = tokenizer.first_identity if is_old else tokenizer.digest
    base = base_digest(recipe.model.name_or_path)
    return {"base": base, "tokenizer_and_template": words, "data": data.digest}


def _told(changed: list[str], noted: dict[str, Any]) -> str:
    names = {"base": "the base", "tokenizer_and_template": "the tokenizer or its template", "data": "the rows"}
    what = " and ".join(names[name] for name in changed)
    verb = "have" if what.endswith("rows") or " and " in what else "has"
    text = f"this run is finished, and {what} {verb} changed since it was trained"
    old, new = noted.get("versions", {}), versions()
    updated = [f"{name} {old[name]}, now {new[name]}" for name in new if name in old and old[name] != new[name]]
    return f"{text} (it was trained with {'; '.join(updated)})" if updated else text


def _whole_summary(run: RunDir, *, trust_remote_code: bool) -> dict[str, Any] | None:
    """The summary of a run whose adapter is as the summary says; None otherwise."""
    if not run.summary.is_file() or not is_adapter(run.adapter):
        return None
    try:
        summary = json.loads(run.summary.read_text(encoding="utf-8"))
        json.loads((run.adapter / "tokenizer.json").read_bytes())
        saved_tokenizer(run.adapter, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(summary, dict) or "steps" not in summary:
        return None
    is_same = summary.get("adapter_file_sha256") in (None, file_digest(run.adapter))
    return summary if is_same else None
