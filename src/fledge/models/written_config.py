"""The config.json of a merged model: the base's own, key by key, with what merging changed written in."""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedModel

from fledge.config.model import Dtype
from fledge.models.language import text_config
from fledge.models.spelling import with_older_names

_QUANTIZED = ("quantization_config", "compression_config")
"""What says in which form weights lie that are no numbers of their own; a merged model's are."""
_DTYPES = ("torch_dtype", "dtype")
"""What versions of transformers before 4.56 and since call the number format."""
_PLACE = "_name_or_path"


def written_config(
    own: Mapping[str, Any], model: PreTrainedModel, *, dtype: Dtype, stop_ids: frozenset[int] | None = None
) -> dict[str, Any]:
    """What config.json of the merged `model` holds, in the base's order, with new keys at its end.

    Changed are the number format, the size of the vocabulary, whether the head is tied, how weights are packed, and,
    where `stop_ids` are given, the ids on which an answer ends. Names that only newer versions of transformers know get
    the older ones beside them.
    """
    made = _without(own, {*_QUANTIZED, _PLACE})
    text = _text_part(made, model)
    text["vocab_size"] = text_config(model).vocab_size
    if (tied := is_tied(model)) is not None and tied != _says_tied(model):
        _set_where_read(made, text, "tie_word_embeddings", tied)
    if stop_ids is not None:
        text["eos_token_id"] = as_ids(stop_ids)
    for part in (made, *_parts(made)):
        part |= {name: dtype for name in _DTYPES if name in part}
    text |= with_older_names(text)
    made["torch_dtype"] = dtype
    return made


def is_tied(model: PreTrainedModel) -> bool | None:
    """Whether head and embedding are one tensor; None where there is no head."""
    head = model.get_output_embeddings()
    return None if head is None else head.weight is model.get_input_embeddings().weight


def _says_tied(model: PreTrainedModel) -> bool | None:
    """What the base's config.json says of it. T5's is taken as it is, for there the key stands for a factor too."""
    if hasattr(text_config(model), "scale_decoder_outputs"):
        return is_tied(model)
    return bool(model.config.tie_word_embeddings)


def as_ids(found: frozenset[int]) -> int | list[int] | None:
    """Ids as transformers writes them: one alone is a number."""
    ids = sorted(found)
    return ids[0] if len(ids) == 1 else ids or None


def _without(own: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """A copy, and copies of the parts in it, without these keys."""
    kept = {name: value for name, value in own.items() if name not in names}
    return {name: _without(value, names) if isinstance(value, dict) else value for name, value in kept.items()}


def _parts(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configurations within a configuration: of a language model, of a vision tower."""
    for name, value in made.items():
        if isinstance(value, dict) and (name.endswith("_config") or name in ("encoder", "decoder")):
            yield value
            yield from _parts(value)


def _text_part(made: dict[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """Where the file describes the language model: at its top, or in a part of its own."""
    text = text_config(model)
    if text is model.config:
        return made
    names = [name for name in getattr(model.config, "sub_configs", {}) if getattr(model.config, name, None) is text]
    part = made.get(names[0]) if names else None
    return part if isinstance(part, dict) else made


def _set_where_read(made: dict[str, Any], text: dict[str, Any], name: str, value: Any) -> None:
    """Set a key that the library reads at the top of the file, and in the part where the file has it too."""
    if name in text or text is made:
        text[name] = value
    if text is not made:
        made[name] = value
