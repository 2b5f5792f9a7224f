"""SmolLM3 in GGUF: every fourth block rotates nothing, in llama.cpp whatever the file says."""

import gguf

from fledge.exporting.gguf.family import Config, Family, first_refusal, until_window
from fledge.exporting.gguf.llama import LLAMA, describe_llama, refusal_of_llama

_PERIOD = 4


def _refusal(config: Config) -> str | None:
    rotated = [int(block % _PERIOD != 0) for block in range(1, config.num_hidden_layers + 1)]
    is_usual = [int(has) for has in config.no_rope_layers[: config.num_hidden_layers]] == rotated
    return first_refusal(refusal_of_llama(config), None if is_usual else "another order of blocks without positions")


SMOLLM3 = Family(
    arch=gguf.MODEL_ARCH.SMOLLM3,
    describe=describe_llama,
    refusal=_refusal,
    layout=LLAMA.layout,
    longest=until_window,
)
