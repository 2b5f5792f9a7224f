"""Loads a base: any causal model or encoder-decoder that transformers loads, frozen, in one number format."""

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedModel

from fledge.config.model import Attention, ModelConfig
from fledge.config.quoted import cure_of, said
from fledge.errors import ModelError
from fledge.facts import ModelFacts
from fledge.models.attention import IMPLEMENTATIONS, flash_missing
from fledge.models.beside import ALONE, check_alone, note_beside
from fledge.models.exceptions import NOTES, check_exceptions, mend
from fledge.models.facts import read_facts
from fledge.models.generation import check_generation
from fledge.models.kinds import auto_class
from fledge.models.language import check_reads_text, set_aside, text_config
from fledge.models.load_quantized import Tell, check_whole, load_quantized
from fledge.models.locate import locate, out_of_reach
from fledge.models.placement import keep_whole, place
from fledge.models.prequantized import make_whole
from fledge.models.quantize import as_plain_linears, quantized_share
from fledge.models.quiet import quiet
from fledge.models.rotary import angles_by_row
from fledge.runtime.memory import available_bytes
from fledge.runtime.precision import TORCH_DTYPES

_CURE = (
    "give a language model whose folder holds config.json and whole .safetensors files (pickled weights are refused)"
)

MOST = 0.9
"""Of the blocks' parameters: where fewer are quantised, the run says so."""
KEEP_SHARE = 0.5
"""Of the memory at hand, what dequantised copies may take."""


@dataclass(frozen=True, slots=True)
class Base:
    """A loaded base and what it is."""

    model: PreTrainedModel
    facts: ModelFacts


def load_base(
    config: ModelConfig,
    *,
    device: torch.device,
    as_plain: bool = False,
    is_whole: bool = False,
    tell: Tell = lambda text: None,
) -> Base:
    """The frozen base in eval mode. Raises ModelError with the cure where it cannot be loaded.

    An adapter that lies beside its weights is never loaded. `as_plain`: where the recipe quantises, plain modules that
    hold the dequantised weights, to be merged into. `is_whole`: with what only images are read with, too, which is let
    go of elsewhere, for rows are text. `tell` is told of such an adapter, and of what takes long.
    """
    model = _read(config, tell)
    if as_plain:
        as_plain_linears(model)
    _freeze(model)
    if not is_whole:
        _set_aside(model, config, tell)
    angles_by_row(model)
    facts = read_facts(model)
    can_stream = device.type == "cuda" and not as_plain  # what is merged into must lie in one place
    streamed = place(model, device, room=available_bytes(device) if can_stream else float("inf"))
    if streamed:
        tell(f"{streamed} layers do not fit the GPU: they stay in host memory and stream in, which is slow")
    if config.keep_dequantized:
        kept, of = keep_whole(model, room=KEEP_SHARE * available_bytes(device))
        tell(f"{kept} of {of} quantised layers are kept dequantised")
    return Base(model, facts)


def _read(config: ModelConfig, tell: Tell) -> PreTrainedModel:
    """The model as the library loads it."""
    source, attention = locate(config.name_or_path), _attention(config.attention)
    check_generation(config)
    method = None
    try:
        described = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        with quiet():
            if config.quantization == "none":
                method = make_whole(described, source=source, where=config.name_or_path)
                model = _load(described, source, config, attention)
            else:
                model = load_quantized(source, config, described=described, attention=attention, tell=tell)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reach = out_of_reach(config.name_or_path)
        what = f"the base cannot be loaded: {said(error)}{f' ({reach})' if reach else ''}"
        raise ModelError(what, where=config.name_or_path, cure=cure_of(error, otherwise=_CURE)) from error
    if note := note_beside(source, name=config.name_or_path, revision=config.revision):
        tell(note)
    if config.quantization != "none" and (share := quantized_share(model)) < MOST:
        tell(
            f"{share:.0%} of the blocks' parameters are held in {config.quantization}: the others are no plain linears"
        )
    if method is not None:
        tell(f"this base comes quantised by {method}: its weights are made whole in {config.dtype} as they are read")
    return model


def _freeze(model: PreTrainedModel) -> None:
    mend(model)
    check_exceptions(model)
    model.requires_grad_(False)
    model.eval()
    text_config(model).use_cache = False


def _set_aside(model: PreTrainedModel, config: ModelConfig, tell: Tell) -> None:
    """Let go of what only images are read with. Raises ModelError where the base does not read text alone."""
    aside = set_aside(model)
    if aside:
        check_reads_text(model, where=config.name_or_path)
        what = f"this base reads images too, with {' and '.join(aside)}: that part is not held, for rows are text, and"
        tell(f"{what} is not trained; a merged export has it as it is in the base")
    if type(model) in NOTES:
        tell(NOTES[type(model)])


def _attention(attention: Attention) -> str | None:
    """transformers' name of it; None where it may choose. Raises ModelError where it cannot run here."""
    missing = flash_missing() if attention == "flash" else None
    if missing is not None:
        raise ModelError(
            f"flash attention cannot run here: {missing}", where="model.attention", cure="write model.attention: auto"
        )
    return IMPLEMENTATIONS.get(attention)


def _load(described: Any, source: str, config: ModelConfig, attention: str | None) -> PreTrainedModel:
    kind = auto_class(described, where=config.name_or_path, trust_remote_code=config.trust_remote_code)
    model, info = kind.from_pretrained(
        source,
        config=described,
        revision=config.revision,
        dtype=TORCH_DTYPES[config.dtype],
        trust_remote_code=config.trust_remote_code,
        attn_implementation=attention,
        use_safetensors=True,
        output_loading_info=True,
        **ALONE,
    )
    check_alone(model, where=config.name_or_path)
    check_whole(info, where=config.name_or_path)
    return model
