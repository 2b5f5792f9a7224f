"""What newer versions of transformers and tokenizers write, in the spelling that older versions read too."""

from collections.abc import Mapping
from typing import Any

_ROPE = "rope_parameters"
_THETA, _SHARE = "rope_theta", "partial_rotary_factor"
_LOCAL = "rope_local_base_freq"
_KINDS = ("linear", "dynamic", "yarn", "longrope", "llama3")
"""Of scaling that version 4 knows."""
_BY_LAYER = ("gemma3_text",)
"""Kinds with settings for each kind of layer whose `rope_scaling` version 5 takes for the layers that see everything.
Of others it would take it for all."""
_OTHER_NAMES: dict[str, dict[str, str]] = {
    "gpt_neox": {_THETA: "rotary_emb_base", _SHARE: "rotary_pct"},
    "gpt_neox_japanese": {_THETA: "rotary_emb_base", _SHARE: "rotary_pct"},
}
"""By model_type: kinds whose own older names for these are others."""

_COMMENT = "#version"
"""What begins like this is no merge where merges are texts."""


def with_older_names(part: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that older versions read and that this configuration lacks; empty where there are none.

    Version 5 keeps all rotary settings in `rope_parameters`. Version 4 reads the base as `rope_theta`, the rotated
    share as `partial_rotary_factor` and the scaling as `rope_scaling`, and takes its own defaults without them.
    """
    rope = part.get(_ROPE)
    if not isinstance(rope, dict):
        return {}
    whole = _of_whole_attention(rope)
    names = _OTHER_NAMES.get(str(part.get("model_type")), {})
    found = {names.get(name, name): whole[name] for name in (_THETA, _SHARE) if whole.get(name) is not None}
    scaling = {name: value for name, value in whole.items() if name not in (_THETA, _SHARE)}
    is_read = whole is rope or part.get("model_type") in _BY_LAYER
    if is_read and scaling.get("rope_type", "default") in _KINDS:
        found["rope_scaling"] = scaling
    local = rope.get("sliding_attention")
    if isinstance(local, dict) and _THETA in local:
        found[_LOCAL] = local[_THETA]
    return {name: value for name, value in found.items() if part.get(name) is None}


def _of_whole_attention(rope: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of layers that see every position, where layers have settings of their own."""
    whole = rope.get("full_attention")
    return whole if isinstance(whole, dict) else rope


def with_older_merges(rules: Mapping[str, Any]) -> dict[str, Any]:
    """The rules of a tokenizer.json with each merge as one text, "a b", which every version of tokenizers reads.

    Versions from 0.20 on write pairs, and versions before it refuse the file then. They stay pairs where a part has a
    space of its own, which one text could not tell.
    """
    model = rules.get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    if not isinstance(merges, list) or not all(_is_plain_pair(merge) for merge in merges):
        return dict(rules)
    return {**rules, "model": {**rules["model"], "merges": [" ".join(merge) for merge in merges]}}


def _is_plain_pair(merge: Any) -> bool:
    is_pair = isinstance(merge, list) and len(merge) == 2
    return is_pair and not any(" " in part for part in merge) and not merge[0].startswith(_COMMENT)
