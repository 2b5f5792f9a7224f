"""What a base says of generating, kept as its files have it, and checked before a training."""

import copy
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.own_files import own_file, own_json
from fledge.models.quiet import quiet
from fledge.models.tokenizer import Tokenizer, ids_in
from fledge.models.written_config import as_ids

_CURE = f"mend {GENERATION_CONFIG_NAME} in the base's folder, or take it out: the library's settings hold then"
_NOT_OF_ANSWERS = (
    "transformers_version",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
)
"""Of the settings that config.json may hold, those that change no answer."""
_NUMBERS = tuple(
    "max_length max_new_tokens min_length min_new_tokens num_beams temperature top_k top_p min_p typical_p "
    "repetition_penalty length_penalty no_repeat_ngram_size".split()
)
"""Settings that the library does not look at before it generates."""
_DERIVED = "_from_model_config"
"""Where a file says it, version 4 of the library makes the settings anew out of config.json."""


def check_generation(base: ModelConfig) -> None:
    """Raises ModelError where the base's own settings for generating cannot be read, so that it is known before a
    training and not at its export.
    """
    settings = own_json(base, GENERATION_CONFIG_NAME)
    if settings is None:
        return
    if why := _fault(settings):
        what = f"the base's settings for generating cannot be used: {why}"
        raise ModelError(what, where=str(own_file(base, GENERATION_CONFIG_NAME)), cure=_CURE)


def _fault(settings: Mapping[str, Any]) -> str | None:
    """Why settings cannot be used; None where they can."""
    strange = [name for name in _NUMBERS if not isinstance(settings.get(name, 0), int | float | None)]
    if strange:
        return f"{strange[0]} is {settings[strange[0]]!r}, which is no number"
    try:
        with quiet():
            GenerationConfig.from_dict(dict(settings))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return None


def own_generation(base: ModelConfig, described: PreTrainedConfig) -> dict[str, Any]:
    """The base's generation_config.json, key by key; of a base without one, what its config.json says of generating.

    `described` is its configuration as the library has read it, which knows the defaults of its kind. What the file
    itself says is read from the file: version 5 of the library takes it for no setting any more, version 4 does.
    """
    own = own_json(base, GENERATION_CONFIG_NAME)
    if own is not None:
        return {name: value for name, value in own.items() if name != _DERIVED}
    with quiet():
        settings = GenerationConfig.from_model_config(copy.deepcopy(described)).to_dict()
    defaults = GenerationConfig().to_dict()
    found = {name: value for name, value in settings.items() if value not in (None, defaults.get(name))}
    filed = own_json(base, CONFIG_NAME) or {}
    found |= {name: filed[name] for name in defaults if filed.get(name) is not None}
    return {name: value for name, value in found.items() if name[0] != "_" and name not in _NOT_OF_ANSWERS}


def written_generation(own: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """generation_config.json of what was trained: the base's own, with the ids that an answer ends on and begins with,
    and that rows are padded with.
    """
    made = dict(own)
    if frozenset(ids_in(own.get("eos_token_id"))) != tokenizer.stop_ids:
        made["eos_token_id"] = as_ids(tokenizer.stop_ids)
    made["pad_token_id"] = tokenizer.pad_token_id
    if tokenizer.decoder_start_id is not None:
        made["decoder_start_token_id"] = tokenizer.decoder_start_id
    return made
