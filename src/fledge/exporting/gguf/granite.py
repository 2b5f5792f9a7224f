"""Granite in GGUF: a Llama whose embedding, residuals, attention and logits have a scale each."""

import gguf

from fledge.exporting.gguf.family import Config, Family, first_refusal
from fledge.exporting.gguf.llama import LLAMA, describe_llama, refusal_of_llama


def _describe(writer: gguf.GGUFWriter, config: Config) -> None:
    describe_llama(writer, config)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def _refusal(config: Config) -> str | None:
    scales = config.embedding_multiplier, config.residual_multiplier, config.attention_multiplier
    # which in llama.cpp means that nothing is said
    return first_refusal(refusal_of_llama(config), None if all(scales) else "a scale of 0")


GRANITE = Family(arch=gguf.MODEL_ARCH.GRANITE, describe=_describe, refusal=_refusal, layout=LLAMA.layout)
