"""A merged model as one GGUF file: merged in float32, rounded once, read back by a reader that is not the writer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from fledge.config.model import Dtype
from fledge.errors import ProofError
from fledge.exporting.behaviour import Behaviour, Probe
from fledge.exporting.gguf.rounding import FILE_TYPES, FileType
from fledge.exporting.gguf.spaces import choose_spaces
from fledge.exporting.gguf.write import check_form, longest, read_by, remarks, rows_of, write_gguf
from fledge.exporting.merged import outline_of
from fledge.exporting.merging import fits, merge_closest
from fledge.exporting.outside import Outside
from fledge.exporting.reading import lesson_of
from fledge.exporting.sealed import file_sha256
from fledge.exporting.targets.draft import Draft, Order, case_for, check_behaviour
from fledge.exporting.targets.rounded import check_rounded, digests_of_rounded
from fledge.exporting.targets.words import check_words, read_words
from fledge.exporting.trained import Learnt, Source, measure_trained
from fledge.exporting.verify import Tolerance, check_stops, tolerance_of, widest
from fledge.runtime.precision import TORCH_DTYPES

READER = Path(__file__).parents[1] / "gguf" / "outsider.py"
FORMATS: tuple[FileType, ...] = tuple(FILE_TYPES)
TOLERANCES: dict[FileType, Tolerance] = {
    "f16": tolerance_of("float16"),
    "bf16": tolerance_of("bfloat16"),
    "q8_0": Tolerance(relative=1e-1, mean_kl=5e-3, tie=4e-2),
}
"""q8_0 rounds each weight to 1/127 of the largest of 32, and keeps that one's size in float16.

Measured against float32: on random models of two blocks and 32 wide, of every family, logits move by up to 0.033 of
the largest and the mean KL is up to 9.3e-5; on stories260K, which is trained and 64 wide, 0.017 and 1.7e-4. bf16 on the
same: up to 0.010 and 9.98e-6, and 0.006 and 1.9e-5. Wider models average more roundings and move less.
"""


def write_gguf_file(source: Source, folder: Path, *, probe: Probe, order: Order) -> Draft:
    """Merge in float32, tensor by tensor, into one file, model-<format>.gguf, with tokenizer and template in it.

    The proof: read back in a fresh process by transformers, or by a script of its own where transformers does not read
    the architecture, it behaves as what was trained, up to the positions that llama.cpp computes alike; its tensors
    have the bits of one rounding; and its words, special tokens and template are the run's.
    """
    file_type = cast(FileType, order.dtype)
    model = outline_of(source)[0].model
    check_form(model, source.tokenizer, file_type=file_type)
    spaces = choose_spaces(source.tokenizer, probe.samples)
    learnt = measure_trained(source, probe)
    closest = merge_closest(source, learnt, probe=probe, asked=order.onto, dtype=_narrow(file_type, source))
    merged, checks = closest.merged, closest.checks
    # transformers' reader holds every tensor in float32
    dtype: Dtype = "float32" if closest.has_room else _narrow(file_type, source)
    reader = None if closest.has_room and read_by(model) == "transformers" else str(READER)
    source.say(f"writing the merged model as one file, in {file_type}")
    path, about = folder / f"model-{file_type}.gguf", _about(source)
    write_gguf(
        model, source.tokenizer, path=path, file_type=file_type, about=about, tensor_of=merged.tensor, spaces=spaces
    )
    sha256, kind = file_sha256(path), TORCH_DTYPES[dtype]
    expected = digests_of_rounded(merged.names(), merged.tensor, file_type=file_type, dtype=kind)
    del merged, closest
    draft = _draft(_File(path.name, file_type, model, dtype, reader), source, folder, learnt, probe=probe)

    def prove(folder: Path, answers: Sequence[Outside]) -> dict[str, Any]:
        told = checks | draft.prove(folder, answers)
        told["files"] = check_rounded(expected, answers[0].tensors, loose=_loose(model))
        if file_sha256(folder / path.name) != sha256:
            cure = "nothing was kept; look at the disk, and try again"
            raise ProofError("the file is not what was written", where=path.name, cure=cure)
        return told | {"effect": learnt.effect}

    return replace(draft, prove=prove, remarks=remarks(model, source.tokenizer, spaces=spaces))


def gguf_again(source: Source, folder: Path, *, probe: Probe, order: Order) -> Draft:
    """What a finished file must still do. Its bits are told by the certificate."""
    file_type, outline = cast(FileType, order.dtype), outline_of(source)[0]
    learnt = measure_trained(source, probe)
    has_room = fits(outline, "float32", device=torch.device(learnt.device))
    dtype: Dtype = "float32" if has_room else _narrow(file_type, source)
    reader = None if has_room and read_by(outline.model) == "transformers" else str(READER)
    file = _File(f"model-{file_type}.gguf", file_type, outline.model, dtype, reader)
    return _draft(file, source, folder, learnt, probe=probe)


@dataclass(frozen=True, slots=True)
class _File:
    """A written file and how it is read back."""

    name: str
    file_type: FileType
    model: Any
    """The merged model's form, without weights."""
    dtype: Dtype
    """That its reader makes of the weights."""
    reader: str | None


def _draft(file: _File, source: Source, folder: Path, learnt: Learnt, *, probe: Probe) -> Draft:
    most = longest(file.model) if source.tokenizer.decoder_start_id is None else None
    shorter, behaviour = _within(most, probe, learnt.behaviour)
    lesson = lesson_of(source.tokenizer, probe.rows)
    asked = replace(case_for(source, folder, probe=shorter, device=learnt.device), kind="gguf", wants_tensors=True)
    asked = replace(asked, texts=lesson.texts, conversation=lesson.conversation)
    case = replace(asked, file=file.name, reader=file.reader, dtype=file.dtype)
    tolerance = widest(TOLERANCES[file.file_type], tolerance_of(source.base.dtype, file.dtype))

    def agree(folder: Path, answers: Sequence[Outside]) -> dict[str, Any]:
        (found,) = answers
        words, of = read_words(folder / file.name), "the GGUF file"
        ended = replace(found, answers=_ended(found.answers, shorter, stops=words.stop_ids, most=most))
        told = check_behaviour(behaviour, ended, tolerance=tolerance, of=of, tokenizer=source.tokenizer, probe=shorter)
        told["logits"]["in"] = file.dtype
        told["logits"]["read_by"] = "transformers" if file.reader is None else "a script that comes with Fledge"
        told["stops"] = check_stops(source.tokenizer, words.stop_ids)
        rows = rows_of(file.model)
        return told | check_words(source.tokenizer, lesson, words=words, reading=found.reading, rows=rows)

    return Draft((case,), agree, agree)


def _narrow(file_type: FileType, source: Source) -> Dtype:
    """The number format of models nearest to the file's: what it is measured in where float32 has no room."""
    own: dict[FileType, Dtype] = {"f16": "float16", "bf16": "bfloat16"}
    return own.get(file_type, "bfloat16" if source.base.dtype == "float32" else source.base.dtype)


def _about(source: Source) -> dict[str, str]:
    """For the file's own description."""
    name = source.base_name
    return {"name": f"{Path(name).name} tuned with Fledge", "base_model.0.name": Path(name).name}


def _loose(model: Any) -> frozenset[str]:
    """Tensors whose bits a file may hold otherwise: a norm with 1 added, a tied head with the model's factor in it."""
    head = model.get_output_embeddings().weight
    is_tied = head is model.get_input_embeddings().weight
    tensors = model.state_dict(keep_vars=True).items()
    return frozenset(name for name, tensor in tensors if tensor.dim() < 2 or (is_tied and tensor is head))


def _within(most: int | None, probe: Probe, behaviour: Behaviour) -> tuple[Probe, Behaviour]:
    """Both cut to the first `most` positions, where the model and llama.cpp compute the same; None is no end."""
    if most is None:
        return probe, behaviour
    rooms = [max(0, most - len(prompt)) for prompt in probe.prompts]
    answers = tuple(answer[:room] for answer, room in zip(behaviour.answers, rooms, strict=True))
    rows, logits = (tuple(each[:most] for each in side) for side in (probe.rows, behaviour.logits))
    prompts = tuple(prompt[:most] for prompt in probe.prompts)
    return replace(probe, rows=rows, prompts=prompts), replace(behaviour, logits=logits, answers=answers)


def _ended(
    answers: Sequence[tuple[int, ...]], probe: Probe, *, stops: frozenset[int], most: int | None
) -> tuple[tuple[int, ...], ...]:
    """Answers up to where llama.cpp stops: transformers' reader knows one of the file's two stop tokens only."""
    ended = []
    for prompt, answer in zip(probe.prompts, answers, strict=True):
        room = len(answer) if most is None else max(0, most - len(prompt))
        place = next((place for place, token in enumerate(answer) if token in stops), len(answer))
        ended.append(answer[: min(place, room)])
    return tuple(ended)
