"""Writes export folders, reads them back, and compares: only a folder that is proven gets its name."""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fledge.adapters.merge import merge
from fledge.adapters.outside import OutsideCase, logits_outside
from fledge.config.model import Dtype, ModelConfig
from fledge.errors import ProofError, RunError
from fledge.exporting.verify import (
    Behaviour,
    Probe,
    check_answers,
    check_distance,
    check_tensors,
    distance,
    logits_of,
    measure,
    slack_of,
    tolerance_of,
)
from fledge.models.companions import save_companions
from fledge.models.load import load_base
from fledge.models.locate import locate
from fledge.models.tokenizer import Tokenizer, saved_tokenizer
from fledge.models.write import write_model
from fledge.rundir import whole_folder, write_json
from fledge.runtime.precision import TORCH_DTYPES

CERTIFICATE = "certificate.json"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported. `load` gives the base in a number format with the adapter on it, in eval mode."""

    base: ModelConfig
    adapter: Path
    tokenizer: Tokenizer
    load: Callable[[Dtype], Any]
    about: dict[str, Any]
    """What the certificate says of the run."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What an export is held against: the model as it was trained, and the same in float32, where nothing hides."""

    behaviour: Behaviour
    """In the number format of the training."""
    effect: dict[str, Any]
    """How far the adapter moves the base: what the other distances are to be held against."""
    exact_logits: tuple[torch.Tensor, ...]
    """[T,V] of each row, in float32."""
    device: str


def check_free(out: Path) -> None:
    """Raises RunError where `out` is a file, or a folder with something in it."""
    if out.is_dir() and any(out.iterdir()):
        cure = "give a folder that is not there yet"
        raise RunError("there is something in this folder already", where=str(out), cure=cure)
    if out.exists() and not out.is_dir():
        raise RunError("this is a file", where=str(out), cure="give a folder that is not there yet")


def export_hf(source: Source, out: Path, *, probe: Probe, dtype: Dtype) -> dict[str, Any]:
    """Merge in float32, round to `dtype`, write a Hugging Face folder, and prove it before it is named `out`.

    Three proofs: merging changed no logit (both in float32); every tensor read back has the bits that were written;
    and the folder, loaded by plain transformers, behaves as base and adapter did in training. Returns the certificate.
    Raises ProofError with nothing left, RunError where `out` is taken or cannot be written.
    """
    learnt, exact = _measure_trained(source, probe)
    merged = merge(exact)
    del exact
    after = tuple(logits_of(merged, row) for row in probe.rows)
    checks = {"merge": check_distance(distance(learnt.exact_logits, after), tolerance_of("float32"), of="merging")}
    with _fresh(out) as folder:
        write_model(merged.to(TORCH_DTYPES[dtype]), source.tokenizer, folder=folder)
        again = _read_back(source, folder, dtype=dtype, device=merged.device)
        checks["files"] = check_tensors(merged.state_dict(), again.state_dict())
        del merged
        checks |= _prove_merged(source, learnt, again, probe=probe, dtype=dtype)
        checks["tokenizer"] = _check_tokenizer(source.tokenizer, folder)
        return _certify(source, folder, kind="hf", dtype=dtype, checks=checks | {"effect": learnt.effect})


def export_adapter(source: Source, out: Path, *, probe: Probe) -> dict[str, Any]:
    """Write the adapter with its tokenizer, and prove it in a process without Fledge before it is named `out`.

    Proven in the number format of the training, and in float32, where no rounding can hide that an adapter is lost.
    Returns the certificate. Raises ProofError with nothing left, RunError where `out` is taken or cannot be written.
    """
    learnt, exact = _measure_trained(source, probe)
    del exact
    dtype = source.base.dtype
    with _fresh(out) as folder:
        for name in _ADAPTER_FILES:
            shutil.copyfile(source.adapter / name, folder / name)
        save_companions(source.tokenizer, folder)
        checks = _prove_adapter(source, learnt, folder, probe=probe)
        checks["tokenizer"] = _check_tokenizer(source.tokenizer, folder)
        return _certify(source, folder, kind="adapter", dtype=dtype, checks=checks | {"effect": learnt.effect})


@contextlib.contextmanager
def _fresh(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` where all goes well; what the file system refuses, in words.

    Whoever exports has found `out` free before; in the minutes since then something may have come to lie there.
    """
    check_free(out)
    try:
        with whole_folder(out) as folder:
            yield folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"the export cannot be written: {reason}", where=str(out), cure="give another folder") from error


def _measure_trained(source: Source, probe: Probe) -> tuple[Learnt, Any]:
    """What the trained model does with the probe, and the model itself in float32, to be merged or dropped."""
    model = source.load(source.base.dtype)
    behaviour = measure(model, probe)
    effect = _effect(model, behaviour, probe)
    exact_logits = behaviour.logits
    if source.base.dtype != "float32":
        del model
        model = source.load("float32")
        exact_logits = tuple(logits_of(model, row) for row in probe.rows)
    return Learnt(behaviour, effect, exact_logits, str(next(model.parameters()).device)), model


def _read_back(source: Source, folder: Path, *, dtype: Dtype, device: torch.device) -> Any:
    """The written model, loaded by plain transformers as the base was."""
    base = source.base.model_copy(update={"name_or_path": str(folder.absolute()), "revision": "main", "dtype": dtype})
    return load_base(base, device=device).model


def _prove_merged(source: Source, learnt: Learnt, again: Any, *, probe: Probe, dtype: Dtype) -> dict[str, Any]:
    """The figures for the certificate. Raises ProofError where the written model does not do what was trained."""
    expected, tolerance = learnt.behaviour, tolerance_of(dtype, source.base.dtype)
    found = measure(again, probe)
    apart = distance(expected.logits, found.logits)
    return {
        "logits": check_distance(apart, tolerance, of="the exported model"),
        "text": check_answers(expected, found.answers, probe=probe, slack=slack_of(apart, tolerance)),
        "stops": _check_stops(source.tokenizer, again.generation_config.eos_token_id),
    }


def _prove_adapter(source: Source, learnt: Learnt, folder: Path, *, probe: Probe) -> dict[str, Any]:
    """The figures for the certificate. Raises ProofError where plain peft makes something else of the folder."""
    expected, tolerance = learnt.behaviour, tolerance_of(source.base.dtype)
    start, pairs = source.tokenizer.decoder_start_id, list(zip(probe.prompts, expected.answers, strict=True))
    is_pair = start is not None
    read = [tuple(prompt) if is_pair else (*prompt, *answer) for prompt, answer in pairs]
    written = (*map(tuple, probe.rows), *((start, *answer) for _, answer in pairs)) if start is not None else ()
    case = OutsideCase(
        base=locate(source.base.name_or_path),
        adapter=str(folder),
        rows=(*map(tuple, probe.rows), *read),
        written=written,
        dtype=source.base.dtype,
        revision=source.base.revision,
        trust_remote_code=source.base.trust_remote_code,
        attention=None if source.base.attention == "auto" else source.base.attention,
        device=learnt.device,
    )
    first = len(probe.rows)
    fewer = replace(case, rows=case.rows[:first], written=written[:first], dtype="float32")
    exact = [] if case.dtype == "float32" else [fewer]
    logits, *exact_logits = logits_outside([case, *exact])
    apart = distance(expected.logits, logits[: len(probe.rows)])
    checks = {"logits": check_distance(apart, tolerance, of="the adapter in plain peft")}
    for found in exact_logits:
        of = "the adapter in plain peft, in float32"
        checks["float32"] = check_distance(distance(learnt.exact_logits, found), tolerance_of("float32"), of=of)
    said = zip(logits[len(probe.rows) :], probe.prompts, strict=True)
    spoken_logits = [found if is_pair else found[len(prompt) - 1 :] for found, prompt in said]
    ours = replace(expected, answers=_likeliest(expected.answer_logits, expected.answers))
    theirs = _likeliest(spoken_logits, expected.answers)
    checks["text"] = check_answers(ours, theirs, probe=probe, slack=slack_of(apart, tolerance))
    return checks


def _effect(model: Any, expected: Behaviour, probe: Probe) -> dict[str, Any]:
    with model.disable_adapter():
        untaught = tuple(logits_of(model, row) for row in probe.rows)
    return distance(expected.logits, untaught).as_json()


def _likeliest(logits: Sequence[torch.Tensor], answers: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The greedy answers that logits along `answers` amount to: the same up to where another token is likelier.

    Both sides are asked in this one way, for a model that writes with a cache rounds otherwise than one that reads.
    """
    found = []
    for scores, answer in zip(logits, answers, strict=True):
        best = scores.argmax(dim=-1).tolist()
        same = next((place for place, token in enumerate(answer) if best[place] != token), len(answer))
        found.append((*answer[:same], *best[same : same + 1]))
    return tuple(found)


def _check_tokenizer(tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Raises ProofError where vocabulary, rules, template or special tokens are not those of the training."""
    again = saved_tokenizer(folder)
    if again.identity != tokenizer.identity:
        what = "the tokenizer or its chat template is not the same when it is read back"
        raise ProofError(what, where=str(folder), cure="nothing was written; report this with the base's name")
    return {"identity": again.identity, "has_chat_template": again.has_chat_template}


def _check_stops(tokenizer: Tokenizer, found: int | list[int] | None) -> dict[str, Any]:
    stops = {found} if isinstance(found, int) else set(found or ())
    if stops != tokenizer.stop_ids:
        what = f"the exported model stops on {sorted(stops)}, the run on {sorted(tokenizer.stop_ids)}"
        raise ProofError(what, cure="nothing was written; report this with the base's name")
    return {"eos_token_id": sorted(stops)}


def _certify(source: Source, folder: Path, *, kind: str, dtype: Dtype, checks: dict[str, Any]) -> dict[str, Any]:
    files = {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    certificate = {"kind": kind, "dtype": dtype, **source.about, "checks": checks, "sha256": files}
    write_json(folder / CERTIFICATE, certificate)
    return certificate


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
