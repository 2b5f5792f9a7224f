"""Writes one GGUF file: f16, bf16 or q8_0, tensor by tensor, whole or not at all."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Format
from transformers import PreTrainedModel

from fledge.errors import ModelError, RunError
from fledge.exporting.gguf.family import Family
from fledge.exporting.gguf.rounding import FILE_TYPES, FileType, format_of, rounded, size_of
from fledge.exporting.gguf.spaces import AS_THE_RULES_SAY, Spaces
from fledge.exporting.gguf.splitting import remarks_on
from fledge.exporting.gguf.table import FAMILIES
from fledge.exporting.gguf.vocabulary import left_out, read_vocabulary, rules_of, write_vocabulary
from fledge.models.tokenizer import Tokenizer
from fledge.rundir import sync_file, sync_folder

TensorOf = Callable[[str], torch.Tensor]
"""A tensor by its name in the model."""
_OURS = frozenset({"architecture", "file_type", "type", "quantization_version", "alignment"})
_STAY_EXACT = ("attn_rel_b.weight", "position_embd.weight")
"""Small matrices that llama.cpp's own converter leaves, or may leave, in float32."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """One tensor of the file."""

    name: str
    own_name: str
    """Its name in the model; of what the family adds, its name in the file."""
    shape: torch.Size
    """In the file's layout."""
    kind: Format


def supports(model: PreTrainedModel) -> Literal[True] | str:
    """Whether the model has a GGUF form; the reason where it has none."""
    family = FAMILIES.get(type(model))
    if family is None:
        return f"{type(model).__name__} has no GGUF form here; known are {_known()}"
    if (refusal := family.refusal(model.config)) is not None:
        return f"llama.cpp's {gguf.MODEL_ARCH_NAMES[family.arch]} has not what this model has: {refusal}"
    if not family.has_own_head and not _is_tied(model):
        return f"llama.cpp's {gguf.MODEL_ARCH_NAMES[family.arch]} has no head but the embedding, and this model has"
    return True


def read_by(model: PreTrainedModel) -> Literal["transformers", "gguf"]:
    """Who gives the same model back: transformers' own GGUF reader, or only outsider.py beside this."""
    return "transformers" if _family(model).is_read_by_transformers(model.config) else "gguf"


def longest(model: PreTrainedModel) -> int:
    """Positions up to which the file computes what the model does; the file's context length."""
    return _family(model).longest(model.config)


def remarks(model: PreTrainedModel, tokenizer: Tokenizer, *, spaces: Spaces = AS_THE_RULES_SAY) -> tuple[str, ...]:
    """What a person should know of the file: where llama.cpp does otherwise, which the format cannot say."""
    config, found = model.config, [*remarks_on(rules_of(tokenizer), puts_first=spaces.puts_first), *spaces.remarks()]
    if unknown := left_out(tokenizer, rows=rows_of(model)):
        what = f"{len(unknown)} of the tokenizer's tokens, {unknown[0]!r} the first,"
        found.append(f"{what} have no embedding in the base and are left out")
    if (length := longest(model)) < getattr(config, "max_position_embeddings", length):
        found.append(f"llama.cpp has no sliding window here, so the file is for texts of up to {length} tokens")
    if "gelu" in (getattr(config, "activation", None), getattr(config, "hidden_act", None)):
        found.append("llama.cpp computes GELU in its tanh form, the model exactly; they differ by less than 0.0005")
    return tuple(found)


def check_form(model: PreTrainedModel, tokenizer: Tokenizer, *, file_type: FileType) -> None:
    """Raises ModelError where the model, which needs no weights yet, or its tokenizer has no GGUF form."""
    if tokenizer.has_own_code:
        what = "its tokenizer has code of its own, and a GGUF file holds no code"
        raise ModelError(what, where="--to gguf", cure="export to hf instead")
    _pieces(model, _family(model), file_type)
    read_vocabulary(tokenizer, rows=rows_of(model))


def write_gguf(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    *,
    path: Path,
    file_type: FileType,
    about: Mapping[str, str],
    tensor_of: TensorOf | None = None,
    spaces: Spaces = AS_THE_RULES_SAY,
) -> None:
    """Write the model with its tokenizer and chat template as one GGUF file.

    Matrices are rounded once, from float32, to `file_type`; vectors stay float32. One tensor at a time is held beside
    the model. `tensor_of` gives each by its name in the model, which then needs no weights of its own. `spaces` is how
    llama.cpp is to put SentencePiece's spaces. `about` are
    texts by their names under `general.`: name, license, base_model.0.name and others.
    Raises ModelError before anything is written where the architecture or the tokenizer has no GGUF form, ModelError
    with nothing left where a weight is not finite or too large, RunError where `path` is taken or cannot be written.
    """
    family = _family(model)
    pieces = _pieces(model, family, file_type)
    if path.exists():
        raise RunError("there is something here already", where=str(path), cure="give a name that is not there yet")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[family.arch])
    _describe(writer, model, family, file_type=file_type, about=about)
    vocabulary = read_vocabulary(tokenizer, rows=rows_of(model))
    if spaces.puts_first is not None:
        vocabulary = replace(vocabulary, puts_space_first=spaces.puts_first)
    write_vocabulary(writer, vocabulary, tokenizer=tokenizer)
    for piece in pieces:
        size = size_of(piece.shape, piece.kind)
        writer.add_tensor_info(piece.name, piece.shape, np.dtype(np.float32), size, raw_dtype=piece.kind)
    read, extras = tensor_of or _tensors(model, family).__getitem__, family.extras(model.config)

    def laid_out(name: str) -> torch.Tensor:
        return extras[name] if name in extras else family.layout(name, _exact(read(name)), model.config)

    try:
        _write(writer, temporary, pieces, layout=laid_out)
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or "the disk took only a part of it"  # numpy gives no reason for a short write
        raise RunError(
            f"the export cannot be written: {reason}", where=str(path), cure="give another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _family(model: PreTrainedModel) -> Family:
    """Raises ModelError where the model has no GGUF form."""
    reason = supports(model)
    if reason is not True:
        raise ModelError(reason, where="--to gguf", cure="export to hf instead")
    return FAMILIES[type(model)]


def _is_tied(model: PreTrainedModel) -> bool:
    """Whether the head is the embedding: what the weights say, for a configuration may say otherwise."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _known() -> str:
    return ", ".join(sorted(kind.__name__ for kind in FAMILIES))


def rows_of(model: PreTrainedModel) -> int:
    """Tokens that the model has an embedding for."""
    return int(model.get_input_embeddings().weight.shape[0])


def _tensors(model: PreTrainedModel, family: Family) -> dict[str, torch.Tensor]:
    """What the file has, by the model's names."""
    tensors: dict[str, torch.Tensor] = dict(model.named_parameters())
    if family.writes_tied_head and _is_tied(model):
        tensors["lm_head.weight"] = model.get_output_embeddings().weight
    return tensors


def _pieces(model: PreTrainedModel, family: Family, file_type: FileType) -> tuple[_Piece, ...]:
    """Every tensor once, under its name in the file. Raises ModelError where one has no name there."""
    config: Any = model.config
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    tensors = _tensors(model, family)
    known = {id(tensor) for tensor in model.parameters()}
    odd = [name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) not in known]
    pieces = {name: _Piece(name, name, vector.shape, Format.F32) for name, vector in family.extras(config).items()}
    for own_name, tensor in tensors.items():
        candidates = (own_name, own_name.removeprefix(f"{model.base_model_prefix}."))
        found = (names.get_name(candidate, try_suffixes=(".weight", ".bias")) for candidate in candidates)
        name = next((candidate for candidate in found if candidate), None)
        if name is None or name in pieces or not tensor.is_floating_point():
            odd.append(own_name)
            continue
        shape = family.layout(own_name, torch.empty_like(tensor, device="meta"), config).shape
        kind = format_of(shape, file_type, stays_exact=name.endswith(_STAY_EXACT))
        pieces[name] = _Piece(name, own_name, shape, kind)
    if odd:
        what = f"{len(odd)} tensors have no place in a GGUF file, the first {odd[0]}"
        raise ModelError(what, where="--to gguf", cure="export to hf instead")
    return tuple(pieces.values())


def _describe(
    writer: gguf.GGUFWriter, model: PreTrainedModel, family: Family, *, file_type: FileType, about: Mapping[str, str]
) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    for name, text in about.items():
        assert name not in _OURS, f"general.{name} is the writer's own"
        writer.add_string(f"general.{name}", text)
    writer.add_file_type(FILE_TYPES[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(family.longest(model.config))
    writer.add_vocab_size(rows_of(model))
    family.describe(writer, model.config)


def _write(writer: gguf.GGUFWriter, path: Path, pieces: tuple[_Piece, ...], *, layout: TensorOf) -> None:
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for piece in pieces:
            writer.write_tensor_data(rounded(layout(piece.own_name).contiguous(), piece.kind, where=piece.own_name))
    finally:
        writer.close()


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32)
