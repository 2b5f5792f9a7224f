"""What single architectures get wrong upstream: the one place that knows, each entry with the test that ends it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.falcon.modeling_falcon import FalconAttention
from transformers.models.llama4.modeling_llama4 import Llama4ForConditionalGeneration

from fledge.errors import ModelError


def _falcon_alibi_twice(model: PreTrainedModel) -> None:
    """transformers 5.23 adds Falcon's ALiBi to the mask and to the scores in eager attention; sdpa has it once.

    Ends when tests/unit/models/test_documents.py sees the two agree.
    """
    if model.config._attn_implementation == "eager" and model.config.alibi:
        cure = "write model.attention: auto"
        raise ModelError("eager attention of this base counts ALiBi twice", where="model.attention", cure=cure)


def _overflows(model: PreTrainedModel) -> None:
    """A family whose feed-forward products transformers keeps in float32 overflows in float16."""
    if model.dtype == torch.float16 and getattr(model, "_keep_in_fp32_modules", None):
        what = f"{type(model).__name__} overflows in float16: its feed-forward layers exceed what the format can hold"
        raise ModelError(what, where="model.dtype", cure="write model.dtype: bfloat16, or float32")


def _llama4_lends_nothing(model: Any) -> None:
    """transformers 5.24.0 reads image_outputs off the output of Llama 4's language model, which has none, so the class
    for text and images computes nothing (5.23.0's did). None is right for text.

    Ends when tests/unit/models/test_language.py sees the class compute by itself.
    """
    model.language_model.register_forward_hook(_without_images)


def _without_images(_module: nn.Module, _given: Any, out: Any) -> None:
    if not hasattr(out, "image_outputs"):
        out.image_outputs = None


MENDS: dict[type[nn.Module], Callable[[Any], None]] = {Llama4ForConditionalGeneration: _llama4_lends_nothing}
"""By the type of the model: what is put right on the instance."""
NOTES: dict[type[nn.Module], str] = {
    Llama4ForConditionalGeneration: "transformers 5.24.0 computes nothing with the class of this base, "
    "Llama4ForConditionalGeneration, by itself (5.23.0 does): Fledge puts that right for its own runs and proofs"
}
"""By the type of the model: what somebody should know who uses what was trained without Fledge."""
EXCEPTIONS: dict[type[nn.Module], Callable[[PreTrainedModel], None]] = {FalconAttention: _falcon_alibi_twice}
"""By the type of a module that the model has."""


def mend(model: PreTrainedModel) -> None:
    """Put right what keeps a model of this type from computing at all; of most types nothing does."""
    MENDS.get(type(model), lambda _: None)(model)


def check_exceptions(model: PreTrainedModel) -> None:
    """Raises ModelError where this model, loaded as it is, would compute something else than it was trained to."""
    _overflows(model)
    for kind in {type(module) for module in model.modules()} & set(EXCEPTIONS):
        EXCEPTIONS[kind](model)
