"""Names of other tools that are answered by what their value is: functions that `answer.py` calls."""

from collections.abc import Callable
from typing import Any, TypeGuard, get_args

from fledge.config.dump import flow
from fledge.config.instead import INT8, NF4, PLAIN
from fledge.config.model import Dtype
from fledge.config.output import Tracker
from fledge.config.words import WORDS

_TRACKERS = get_args(Tracker)
_NO_TRACKER = f"remove it: output.trackers is empty by default; it takes {' and '.join(_TRACKERS)}"
_RANKS = (8, 16)


def word_of(value: Any) -> str:
    """A value as the tables of foreign words have it."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value).strip().lower()


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_number_format(value: Any) -> str:
    """`precision: bf16-true`: the number format in the option's own word."""
    word = word_of(value)
    ours = word if word in get_args(Dtype) else {"no": "float32", **WORDS["model.dtype"]}.get(word)
    if ours is None or isinstance(value, bool):
        return "remove it: model.dtype says the number format: bfloat16 (the default), float16 or float32"
    return f"write model.dtype: {ours}"


def _of_warmup(value: Any) -> str:
    if is_number(value) and 0 < value < 1:
        return f"write train.warmup_ratio: {flow(value)} (a share of all steps; train.warmup_steps is their number)"
    if is_number(value) and value >= 0:
        return f"write train.warmup_steps: {int(value)} (train.warmup_ratio is a share of all steps)"
    return "remove it: train.warmup_ratio is a share of all steps, train.warmup_steps is their number"


def _of_trackers(value: Any) -> str:
    if word_of(value) == "all":
        return f"write output.trackers: {flow(_TRACKERS)}"
    names = value if isinstance(value, tuple) else (value,)
    known = tuple(word for name in names if (word := word_of(name)) in _TRACKERS)
    return f"write output.trackers: {flow(known)}" if known else _NO_TRACKER


def _of_patience(value: Any) -> str:
    if value is True or (is_number(value) and value >= 1):
        count = 3 if value is True else int(value)
        return f"write evaluate.early_stopping_patience: {count} (evaluations without a better validation loss)"
    return "remove it: evaluate.early_stopping_patience is null by default"


def _of_quantization(value: Any) -> str:
    """A mapping of bitsandbytes' options, or the number of bits."""
    given = value if isinstance(value, dict) else {"bits": value}
    if given.get("load_in_8bit") is True or word_of(given.get("bits")) == "8":
        return INT8
    is_four = given.get("load_in_4bit") is True or word_of(given.get("bits")) == "4"
    return NF4 if is_four or "bnb_4bit_quant_type" in given else PLAIN


def _of_multiplier(value: Any) -> str:
    """The multiplier of the adapter's output, which is lora_alpha / r: the rank stands elsewhere."""
    if not is_number(value):
        return "remove it: lora.lora_alpha / lora.r is what the update is multiplied by"
    products = ", ".join(f"{flow(value * rank)} with r: {rank}" for rank in _RANKS)
    return f"remove it, and write this number times r as lora_alpha: {products}"


VALUED: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("bnb_4bit_compute_dtype", "compute_type", "mixed_precision", "precision"), _of_number_format),
    **dict.fromkeys(("early_stop", "early_stopping", "enable_early_stopping"), _of_patience),
    **dict.fromkeys(("bnb_config", "quantization_config"), _of_quantization),
    **dict.fromkeys(("log_with", "logger_name", "report_to"), _of_trackers),
    **dict.fromkeys(("lora_scale", "lora_scaling"), _of_multiplier),
    "warmup": _of_warmup,
}
"""By name: the cure for a value."""
VALUED_IN_LORA = dict.fromkeys(("scale", "scaling"), _of_multiplier)
"""Names that mean something in the section lora alone."""
