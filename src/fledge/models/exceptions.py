"""What single architectures get wrong upstream: the one place that knows, each entry with the test that ends it."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.falcon.modeling_falcon import FalconAttention

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


EXCEPTIONS: dict[type[nn.Module], Callable[[PreTrainedModel], None]] = {FalconAttention: _falcon_alibi_twice}
"""By the type of a module that the model has."""


def check_exceptions(model: PreTrainedModel) -> None:
    """Raises ModelError where this model, loaded as it is, would compute something else than it was trained to."""
    _overflows(model)
    for kind in {type(module) for module in model.modules()} & set(EXCEPTIONS):
        EXCEPTIONS[kind](model)
