"""OLMo 2 in GGUF: norms stand behind attention and MLP, and queries and keys are normed before they are heads."""

import gguf

from fledge.exporting.gguf.family import Config, Family, first_refusal, width_refusal
from fledge.exporting.gguf.llama import describe_llama, refusal_of_llama


def _refusal(config: Config) -> str | None:
    return first_refusal(refusal_of_llama(config), width_refusal(config))


OLMO2 = Family(arch=gguf.MODEL_ARCH.OLMO2, describe=describe_llama, refusal=_refusal, writes_tied_head=True)
