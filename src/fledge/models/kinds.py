"""Which of transformers' automatic classes loads a base, by what the library has registered for its configuration."""

from dataclasses import dataclass
from typing import Any

from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
)

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.locate import locate

_TEXT, _IMAGES = "text_config", "vision_config"
"""What the configuration of a base for text and images is made of, by the library's names."""
_CURE = "give a language model, or one for text and images that config.json makes of text_config and vision_config"


def auto_class(described: Any, *, where: str, trust_remote_code: bool = False) -> Any:
    """The automatic class that loads a base of this configuration, which is the one that others load it with.

    A base for text and images is loaded as such, so that an export is of the same kind; a text model that was taken
    out of one says so in its `architectures`. Raises ModelError where a base reads more than these, or where the
    library has no language model of its kind.
    """
    pair = bool(described.is_encoder_decoder)
    plain = AutoModelForSeq2SeqLM if pair else AutoModelForCausalLM
    code = getattr(described, "auto_map", None) or {}
    if plain.__name__ in code and trust_remote_code:
        return plain
    kind = type(described)
    is_registered = kind in plain._model_mapping
    if not pair and kind in MODEL_FOR_MULTIMODAL_LM_MAPPING and not _is_text_alone(described):
        _check_parts(described, where=where)
        return AutoModelForImageTextToText
    if not is_registered and kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not pair:
        return AutoModelForImageTextToText
    if not is_registered and plain.__name__ not in code:
        what = f"transformers has no language model of the kind {described.model_type}"
        raise ModelError(what, where=where, cure=_CURE)
    return plain


@dataclass(frozen=True, slots=True)
class Kind:
    """How others load a base."""

    auto: str
    """Name of the automatic class."""
    model: type | None
    """The model's class; None where the base brings its own."""


def kind_of(base: ModelConfig) -> Kind:
    """How a base is loaded, by its configuration alone. Raises ModelError as `auto_class` does."""
    how = {"revision": base.revision, "trust_remote_code": base.trust_remote_code}
    described = AutoConfig.from_pretrained(locate(base.name_or_path), **how)
    auto = auto_class(described, where=base.name_or_path, trust_remote_code=base.trust_remote_code)
    found = auto._model_mapping.get(type(described), None)
    return Kind(auto.__name__, found if isinstance(found, type) else None)


def model_class(described: Any, *, where: str) -> Any:
    """The model's class, as the library has registered it. Raises ModelError as `auto_class` does."""
    auto = auto_class(described, where=where)
    if type(described) not in auto._model_mapping:
        what = f"transformers has no language model of the kind {described.model_type}"
        raise ModelError(what, where=where, cure=_CURE)
    found = auto._model_mapping[type(described)]
    return found[0] if isinstance(found, tuple | list) else found


def _is_text_alone(described: Any) -> bool:
    """Whether the weights are a text model's: the configuration has no other parts, or names that model's class."""
    if not _parts(described):
        return True
    kind, text = type(described), AutoModelForCausalLM._model_mapping
    if kind not in text or kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return False
    alone, whole = text[kind].__name__, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[kind].__name__
    return alone != whole and alone in (described.architectures or ())


def _parts(described: Any) -> set[str]:
    """The configurations that this one is made of."""
    return {name for name in type(described).sub_configs if getattr(described, name, None) is not None}


def _check_parts(described: Any, *, where: str) -> None:
    """Raises ModelError where a base reads more than text and images, or is made of other parts."""
    parts = _parts(described)
    others = sorted(parts - {_TEXT, _IMAGES})
    if _TEXT in parts and not others and type(described) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return
    if "audio_config" in parts:
        what = "this base reads sound too, which is not supported"
    elif others:
        what = f"this base has parts beside text and images ({', '.join(others)}), which is not supported"
    else:
        what = f"this base reads images in a way that is not supported: it is made of {', '.join(sorted(parts))}"
    raise ModelError(what, where=where, cure=_CURE)
