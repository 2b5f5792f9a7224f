"""The adapter alone, in peft's format with its tokenizer: proven on the base in plain peft."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fledge.adapters.settings import for_others, write_settings
from fledge.errors import ProofError
from fledge.exporting.behaviour import Behaviour, Probe, logits_of
from fledge.exporting.card import hub_id
from fledge.exporting.outside import Outside
from fledge.exporting.reading import check_identity, check_reading, lesson_of
from fledge.exporting.sealed import file_sha256
from fledge.exporting.servers import remarks_of
from fledge.exporting.targets.draft import Draft, Order, case_for, check_behaviour
from fledge.exporting.trained import Onto, Source, measure_trained
from fledge.exporting.verify import check_distance, check_stops, distance, tolerance_of
from fledge.models.companions import save_companions_for_others
from fledge.models.locate import locate

_SETTINGS, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write_adapter(source: Source, folder: Path, *, probe: Probe, order: Order) -> Draft:
    """Copy the adapter and write its tokenizer beside it; `order` has no say, for an adapter is what it is.

    adapter_config.json names the base as others can load it, or no base at all.

    The proof: in the number format of the training, and in float32, where no rounding can hide that an adapter is lost.
    Plain peft puts the adapter of a quantised run on the base as it came, so there it is held against the same made by
    Fledge, and how far that is from the model that was trained is written down.
    """
    expected = _expected(source, probe)
    source.say("writing the adapter and its tokenizer")
    _copy(source, folder)
    save_companions_for_others(source.tokenizer, folder, base=source.base)
    draft = _draft(source, folder, expected, probe=probe)

    def prove(folder: Path, answers: Sequence[Outside]) -> dict[str, Any]:
        return expected.checks | draft.prove(folder, answers) | {"files": _check_files(source, folder)}

    return replace(draft, prove=prove, remarks=remarks_of(_settings(source)) or None)


def adapter_again(source: Source, folder: Path, *, probe: Probe, order: Order) -> Draft:
    """What a finished export must still do."""
    return _draft(source, folder, _expected(source, probe), probe=probe)


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the adapter does on the base that plain peft puts it on."""

    behaviour: Behaviour
    exact: Sequence[Any]
    """[T,V] of each row in float32."""
    checks: dict[str, Any]
    device: str


def _expected(source: Source, probe: Probe) -> _Expected:
    learnt = measure_trained(source, probe)
    behaviour, onto, checks = learnt.behaviour, _below(source), {"effect": learnt.effect}
    if source.is_quantized:
        behaviour = measure_trained(source, probe, onto=onto).behaviour
        checks["on_full_precision"] = distance(learnt.behaviour.logits, behaviour.logits).as_json()
    return _Expected(behaviour, _exact(source, behaviour, onto, probe=probe), checks, learnt.device)


def _draft(source: Source, folder: Path, expected: _Expected, *, probe: Probe) -> Draft:
    lesson = lesson_of(source.tokenizer, probe.rows, samples=(*probe.samples, *probe.special))
    asked = case_for(source, folder, probe=probe, device=expected.device)
    asked = replace(asked, base=locate(source.base.name_or_path), revision=source.base.revision)
    case = replace(asked, dtype=source.base.dtype, texts=lesson.texts, conversation=lesson.conversation)
    in_float32 = [replace(case, dtype="float32", prompts=())] if source.base.dtype != "float32" else []

    def agree(folder: Path, answers: Sequence[Outside]) -> dict[str, Any]:
        found, *exactly = answers
        assert found.reading is not None, "an adapter's folder has a tokenizer"
        tolerance, of = tolerance_of(source.base.dtype), "the adapter in plain peft"
        told = check_behaviour(
            expected.behaviour, found, tolerance=tolerance, of=of, tokenizer=source.tokenizer, probe=probe
        )
        for each in exactly:
            apart = distance(expected.exact, each.logits)
            told["float32"] = check_distance(apart, tolerance_of("float32"), of=f"{of}, in float32")
        told["stops"] = check_stops(source.tokenizer, found.stop_ids)
        return told | check_reading(lesson, found.reading)

    def prove(folder: Path, answers: Sequence[Outside]) -> dict[str, Any]:
        told = agree(folder, answers)
        return told | {"tokenizer": check_identity(source.tokenizer, folder) | told.pop("ids")}

    return Draft((case, *in_float32), agree, prove)


def _copy(source: Source, folder: Path) -> None:
    """The adapter's weights, and its settings as others can use them."""
    shutil.copyfile(source.adapter / _WEIGHTS, folder / _WEIGHTS)
    write_settings(_settings(source), folder)


def _settings(source: Source) -> dict[str, Any]:
    """What adapter_config.json says: of the run's own what stands at no default, and the base as others can load it."""
    return for_others(_read(source.adapter), base=hub_id(source.base_name))


def _read(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    return settings


def _check_files(source: Source, folder: Path) -> dict[str, Any]:
    """The figures for the certificate. Raises ProofError where a byte of the adapter is not the run's."""
    is_same = {
        _WEIGHTS: file_sha256(source.adapter / _WEIGHTS) == file_sha256(folder / _WEIGHTS),
        _SETTINGS: _settings(source) == _read(folder),
    }
    differing = [name for name, same in is_same.items() if not same]
    if differing:
        cure = "nothing was kept; look at the disk, and try again"
        raise ProofError(f"{' and '.join(differing)} are not what was trained", where=str(folder), cure=cure)
    return {"files": len(is_same), "differing": 0}


def _below(source: Source) -> Onto:
    """What plain peft puts the adapter on."""
    return "full" if source.is_quantized else "trained"


def _exact(source: Source, expected: Behaviour, onto: Onto, *, probe: Probe) -> Sequence[Any]:
    """[T,V] of each row in float32."""
    if source.base.dtype == "float32":
        return expected.logits
    model = source.load("float32", onto)
    return [logits_of(model, row) for row in probe.rows]
