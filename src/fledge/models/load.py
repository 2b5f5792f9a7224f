"""Loads a base: any causal model or encoder-decoder that transformers loads, frozen, in one number format."""

import logging
from dataclasses import dataclass

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fledge.config.model import Attention, ModelConfig
from fledge.errors import ModelError
from fledge.facts import ModelFacts
from fledge.models.attention import IMPLEMENTATIONS, flash_missing
from fledge.models.exceptions import check_exceptions
from fledge.models.facts import read_facts
from fledge.models.locate import locate
from fledge.runtime.precision import TORCH_DTYPES

_CURE = (
    "give a language model whose folder holds config.json and whole .safetensors files (pickled weights are refused)"
)


@dataclass(frozen=True, slots=True)
class Base:
    """A loaded base and what it is."""

    model: PreTrainedModel
    facts: ModelFacts


def load_base(config: ModelConfig, *, device: torch.device) -> Base:
    """The frozen base in eval mode. Raises ModelError with the cure where it cannot be loaded."""
    source, attention = locate(config.name_or_path), _attention(config.attention)
    try:
        described = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        kind = AutoModelForSeq2SeqLM if described.is_encoder_decoder else AutoModelForCausalLM
        model = _load(kind, source, config, attention)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        what = f"the base cannot be loaded: {_first_line(error)}"
        raise ModelError(what, where=config.name_or_path, cure=_CURE) from error
    check_exceptions(model)
    model.requires_grad_(False)
    model.eval()
    model.config.use_cache = False
    return Base(model.to(device), read_facts(model))


def _attention(attention: Attention) -> str | None:
    """transformers' name of it; None where it may choose. Raises ModelError where it cannot run here."""
    missing = flash_missing() if attention == "flash" else None
    if missing is not None:
        raise ModelError(f"flash attention cannot run here: {missing}", where="model.attention", cure="use auto")
    return IMPLEMENTATIONS.get(attention)


def _load(
    kind: type[AutoModelForCausalLM] | type[AutoModelForSeq2SeqLM],
    source: str,
    config: ModelConfig,
    attention: str | None,
) -> PreTrainedModel:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        model, info = kind.from_pretrained(
            source,
            revision=config.revision,
            dtype=TORCH_DTYPES[config.dtype],
            trust_remote_code=config.trust_remote_code,
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
        )
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
    missing = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if missing:
        what = (
            f"the weights lack {len(missing)} tensors of the model, which would start random: {', '.join(missing[:3])}"
        )
        raise ModelError(what, where=config.name_or_path, cure="fetch the base again, all of its files")
    return model


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
