"""Loads the tokenizer of a base with what a recipe adds to it, and the one that was saved beside an adapter."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from fledge.config.data import DataConfig
from fledge.config.model import Dtype, ModelConfig
from fledge.config.quoted import cure_of, said
from fledge.errors import DataError, ModelError
from fledge.models.chat_template import named_template, single, with_defaults
from fledge.models.folder import code_refusal
from fledge.models.kinds import auto_class
from fledge.models.locate import locate, out_of_reach
from fledge.models.new_words import add_words
from fledge.models.processor import processor_template
from fledge.models.tokenizer import Tokenizer, ids_in, padding_of


def load_tokenizer(model: ModelConfig, data: DataConfig, *, beside: Path | None = None) -> Tokenizer:
    """The base's tokenizer with the recipe's chat template and new tokens, and what the base's decoder starts with
    where it has one. Where `beside` is given, the tokenizer's files are those of that folder, and not the base's.

    Raises ModelError where tokenizer or config.json cannot be read, where the tokenizer gives no offsets or cannot be
    saved, where a new token could not be read or written, where the base is of a kind that is not trained, and for an
    encoder-decoder that writes targets otherwise than sources or does not say what its decoder starts with.
    """
    source = locate(model.name_or_path)
    hf = _loaded(model, source if beside is None else str(beside))
    config = _config(model, source)
    # asked here, so that what is refused is refused before rows are read
    auto_class(config, where=model.name_or_path, trust_remote_code=model.trust_remote_code)
    if beside is None and not hf.chat_template and hasattr(config, "vision_config"):
        hf.chat_template = processor_template(model)
    start = _decoder_start(config, source) if config.is_encoder_decoder else None
    if start is not None and hasattr(hf, "_switch_to_target_mode"):
        what = "its tokenizer writes targets otherwise than sources (by language), which is not supported"
        raise ModelError(what, where=model.name_or_path, cure="use T5, FLAN-T5, mT5 or BART")
    special = list(data.new_special_tokens)
    if data.chat_template is not None:
        hf.chat_template, tokens = named_template(data.chat_template)
        special = [*tokens, *(token for token in special if token not in tokens)]
    if data.chat_template_kwargs:
        hf.chat_template = _with_defaults(hf, data)
    fresh, notes = add_words(hf, special=special, ordinary=data.new_tokens)
    if (reach := out_of_reach(model.name_or_path)) is not None:
        notes = (f"{reach}; the base is the one that is kept on this machine", *notes)
    return Tokenizer(
        hf,
        new_tokens=fresh,
        notes=notes,
        decoder_start_id=start,
        declared_stops=_declared_stops(model, source, config),
        pad_token_id=padding_of(hf, num_embeddings=getattr(config.get_text_config(), "vocab_size", None)),
    )


def _with_defaults(hf: PreTrainedTokenizerBase, data: DataConfig) -> str:
    """The chat template with the recipe's values as its defaults."""
    if not hf.chat_template:
        cure = "set data.chat_template to a template that reads them, or remove the option"
        raise DataError(
            "this base has no chat template that could read them", where="data.chat_template_kwargs", cure=cure
        )
    return with_defaults(single(hf.chat_template), data.chat_template_kwargs)


def _loaded(model: ModelConfig, source: str) -> PreTrainedTokenizerBase:
    """The base's own tokenizer, which reads text as its backend does."""
    try:
        hf = AutoTokenizer.from_pretrained(
            source, revision=model.revision, trust_remote_code=model.trust_remote_code, use_fast=True
        )
    except Exception as error:  # a tokenizer's own code may raise anything, and the library's readers do
        refusal = code_refusal(error, what="the tokenizer", where=model.name_or_path)
        otherwise = "give a base whose folder holds its tokenizer: tokenizer.json, or tokenizer.model"
        unread = _unreadable("the tokenizer cannot be loaded", error, model.name_or_path, otherwise=otherwise)
        raise refusal or unread from error
    if not getattr(hf, "is_fast", False) or not hasattr(hf, "backend_tokenizer"):
        what = "its tokenizer is written in Python alone and gives no character offsets, so masks cannot be proven"
        cure = "use a base whose folder has a tokenizer.json, or a SentencePiece tokenizer.model"
        raise ModelError(what, where=model.name_or_path, cure=cure)
    try:
        hf.backend_tokenizer.to_str()
    except Exception as error:  # the library raises Exception itself
        what = "its tokenizer has parts written in Python, which cannot be saved beside an adapter"
        cure = "use a base whose tokenizer.json is the whole of its tokenizer"
        raise ModelError(f"{what}: {error}", where=model.name_or_path, cure=cure) from error
    return hf


def _unreadable(what: str, error: Exception, where: str, *, otherwise: str) -> ModelError:
    reach = out_of_reach(where)
    words = f"{what}: {said(error)}{f' ({reach})' if reach else ''}"
    return ModelError(words, where=where, cure=cure_of(error, otherwise=otherwise))


def _config(model: ModelConfig, source: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(source, revision=model.revision, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError, StrictDataclassError) as error:
        refusal = code_refusal(error, what="the base", where=model.name_or_path)
        otherwise = "fetch the base again, all of its files"
        unread = _unreadable("the base's config.json cannot be read", error, model.name_or_path, otherwise=otherwise)
        raise refusal or unread from error


@dataclass(frozen=True, slots=True)
class Declared:
    """What a base's config.json says of its size; None where it says nothing (ALiBi and T5 have no positions)."""

    positions: int | None
    width: int | None
    """Features of a token between the blocks."""


def declared_by(model: ModelConfig) -> Declared:
    """What the base's config.json says of its size."""
    config = _config(model, locate(model.name_or_path)).get_text_config()
    found = (getattr(config, name, None) for name in ("max_position_embeddings", "hidden_size"))
    return Declared(*(int(value) if value else None for value in found))


def declared_dtype(model: ModelConfig) -> Dtype | None:
    """The number format of the base's weights, as its config.json has it; None where it says none that is known."""
    named = str(getattr(_config(model, locate(model.name_or_path)), "dtype", None)).removeprefix("torch.")
    return next((dtype for dtype in get_args(Dtype) if dtype == named), None)


def _decoder_start(config: PreTrainedConfig, source: str) -> int:
    """What an encoder-decoder's decoder starts with, as transformers' generate has it."""
    # T5 has no BOS: where its config does not say, it starts with the padding token
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    cure = "write decoder_start_token_id into the base's config.json"
    raise ModelError("an encoder-decoder that does not say what its decoder starts with", where=source, cure=cure)


def _declared_stops(model: ModelConfig, source: str, config: PreTrainedConfig) -> list[int]:
    """The ids on which the base's own settings stop: those of generation_config.json, else those of config.json."""
    try:
        settings = GenerationConfig.from_pretrained(source, revision=model.revision)
    except (OSError, ValueError):  # there is none, or it is no valid one; config.json says it then
        return ids_in(getattr(config.get_text_config(), "eos_token_id", None))
    return ids_in(settings.eos_token_id)


def saved_tokenizer(folder: Path, *, decoder_start_id: int | None = None, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer that was saved beside an adapter or a model.

    A generation_config.json beside it says what pads, and, where `decoder_start_id` is None, whether a decoder starts,
    and with what. Code of the tokenizer's own runs only with `trust_remote_code`.
    """
    file = folder / GENERATION_CONFIG_NAME
    noted = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if decoder_start_id is None:
        decoder_start_id = noted.get("decoder_start_token_id")
    hf = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    stops = ids_in(noted.get("eos_token_id"))
    return Tokenizer(
        hf, decoder_start_id=decoder_start_id, pad_token_id=noted.get("pad_token_id"), declared_stops=stops
    )
