"""Qwen3 in GGUF: queries and keys are normed head by head, and heads are of any width."""

from functools import partial

import gguf

from fledge.exporting.gguf.family import Config, Family, head_width, is_scaled, until_window
from fledge.exporting.gguf.llama import describe_llama, refusal_of_llama

_WIDTH = 128
"""Of a head: what transformers' reader takes for granted."""


def _is_usual(config: Config) -> bool:
    return head_width(config) == _WIDTH and not is_scaled(config)


QWEN3 = Family(
    arch=gguf.MODEL_ARCH.QWEN3,
    describe=describe_llama,
    refusal=partial(refusal_of_llama, scalings=("yarn",)),
    longest=until_window,
    is_read_by_transformers=_is_usual,
)
