"""Fields of a message that say whether it is trained or only read."""

from collections.abc import Mapping
from typing import Any

from fledge.data.kinds import kind_of
from fledge.data.rows import Refusal

WEIGHT_FIELDS = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight", "loss_scale", "masked")
"""OpenAI's, axolotl's, ms-swift's and others' names. All but `masked` say that the message is trained."""
_WORDS = {"true": True, "1": True, "false": False, "0": False}


def trains(message: Mapping[str, Any]) -> bool | Refusal | None:
    """Whether a message asks to be trained; None where it does not say. A weight between 0 and 1 is refused."""
    said: dict[str, bool] = {}
    for name in WEIGHT_FIELDS:
        value = message.get(name)
        if value is None or value != value:  # NaN, as tables write what is missing
            continue
        meant = _WORDS.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(meant, bool | int | float) or meant not in (0, 1):
            shown = value if isinstance(value, int | float) else kind_of(value)
            return Refusal("invalid", f"its {name} is {shown}; only 0 and 1 are supported", "write 0 or 1")
        said[name] = bool(meant) != (name == "masked")
    if len(set(said.values())) > 1:
        return Refusal("invalid", f"{' and '.join(said)} contradict each other", "keep one of them")
    return next(iter(said.values()), None)
