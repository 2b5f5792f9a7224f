"""A merged model as a Hugging Face folder: each tensor merged in float32, rounded once, read back by transformers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fledge.config.model import Dtype
from fledge.errors import ProofError
from fledge.exporting.behaviour import Probe
from fledge.exporting.merging import merge_closest
from fledge.exporting.outside import Outside
from fledge.exporting.reading import check_identity, check_reading, lesson_of
from fledge.exporting.targets.draft import Draft, Order, case_for, check_behaviour
from fledge.exporting.trained import Learnt, Source, measure_trained
from fledge.exporting.verify import check_stops, tolerance_of
from fledge.exporting.weights import check_written, write_weights
from fledge.models.language import image_parts
from fledge.models.processor import copy_processor
from fledge.models.write import write_beside

FORMATS: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")


def write_hf(source: Source, folder: Path, *, probe: Probe, order: Order) -> Draft:
    """Merge tensor by tensor, round each to the number format that is ordered, and write.

    The proof: merging changed no logit, or no layer's products (in float32); every tensor has the bits that were
    written; and the folder, loaded by plain transformers, behaves, reads and stops as base and adapter did in training.
    """
    dtype = cast(Dtype, order.dtype)
    learnt = measure_trained(source, probe)
    closest = merge_closest(source, learnt, probe=probe, asked=order.onto, dtype=dtype)
    source.say(f"writing the merged model, in {dtype}")
    merged, checks = closest.merged, closest.checks
    del closest
    digests = write_weights(merged, folder, dtype=dtype)
    form = merged.outline.model
    write_beside(form, folder, base=source.base, tokenizer=source.tokenizer, dtype=dtype)
    if image_parts(form):
        copy_processor(source.base, folder)
    del merged
    draft = _draft(source, folder, learnt, probe=probe, dtype=dtype)

    def prove(folder: Path, answers: Sequence[Outside]) -> dict[str, Any]:
        files = {"files": check_written(digests, folder, loaded=answers[0].tensors)}
        return checks | files | draft.prove(folder, answers) | {"effect": learnt.effect}

    return replace(draft, prove=prove)


def hf_again(source: Source, folder: Path, *, probe: Probe, order: Order) -> Draft:
    """What a finished export must still do. The bits of its files are told by its certificate."""
    learnt = measure_trained(source, probe)
    return _draft(source, folder, learnt, probe=probe, dtype=cast(Dtype, order.dtype))


def _draft(source: Source, folder: Path, learnt: Learnt, *, probe: Probe, dtype: Dtype) -> Draft:
    lesson = lesson_of(source.tokenizer, probe.rows, samples=(*probe.samples, *probe.special))
    asked = case_for(source, folder, probe=probe, device=learnt.device)
    asked = replace(asked, texts=lesson.texts, conversation=lesson.conversation)
    case = replace(asked, kind="hf", dtype=dtype, wants_tensors=True)
    if learnt.is_large:
        case = replace(case, is_streamed=True, given=learnt.behaviour.answers)

    def agree(folder: Path, answers: Sequence[Outside]) -> dict[str, Any]:
        (found,) = answers
        if found.dtype != dtype:
            raise ProofError(f"the export is read back in {found.dtype}, it was written in {dtype}")
        assert found.reading is not None, "plain transformers always brings a tokenizer"
        told = check_behaviour(
            learnt.behaviour,
            found,
            tolerance=tolerance_of(dtype, source.base.dtype),
            of="the exported model",
            tokenizer=source.tokenizer,
            probe=probe,
        )
        told["stops"] = check_stops(source.tokenizer, found.stop_ids)
        return told | check_reading(lesson, found.reading)

    def prove(folder: Path, answers: Sequence[Outside]) -> dict[str, Any]:
        told = agree(folder, answers)
        return told | {"tokenizer": check_identity(source.tokenizer, folder) | told.pop("ids")}

    return Draft((case,), agree, prove)
