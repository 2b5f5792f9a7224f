"""Attention that keeps packed documents apart: the linears see one long row, attention sees each document alone.

Shapes: B rows, H query heads, K key/value heads, T positions of a row, L positions of one document, D head size.

Nothing is changed class-wide: one attention function is registered with transformers under a name of ours, and
architectures that do not go through that registry get a forward of ours on the instance, undone on exit.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fledge.errors import ModelError
from fledge.models.alibi import ALIBI_FORWARDS

NAME = "fledge_documents"


@dataclass(slots=True)
class Documents:
    """The documents of the batch under way; one object, shared by all attention modules of one model."""

    inner: str
    lengths: tuple[int, ...] | None = None
    """Lengths of the packed documents; None where each row is one document, padded on the right."""

    def spans(self, width: int) -> list[tuple[int, int]]:
        """Half-open ranges of positions that see each other; right padding needs none, for causality hides it."""
        if self.lengths is None:
            return [(0, width)]
        ends = list(itertools.accumulate(self.lengths))
        assert ends[-1] == width, (ends[-1], width)
        return list(zip([0, *ends[:-1]], ends, strict=True))


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_documents(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The library's own attention, called once per document. q [B,H,T,D], k and v [B,K,T,D] -> [B,T,H,D].

    torch.compile leaves it as it is, or it would compile it anew for every row's documents.
    """
    documents: Documents = module.fledge_documents
    options.pop("position_ids", None)  # the whole row's: flash attention would cut a document by them
    assert attention_mask is None, "the registry gives no mask to attention of this name"
    attend = _inner(module, documents.inner)
    window = options.get("sliding_window")
    outputs = []
    for start, end in documents.spans(query.shape[2]):
        part = slice(start, end)
        mask = _mask(end - start, window=window, like=query, inner=documents.inner)
        outputs.append(attend(module, query[:, :, part], key[:, :, part], value[:, :, part], mask, **options)[0])
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), None


def _inner(module: nn.Module, name: str) -> Callable[..., Any]:
    """The attention function that the model would have called without us."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)


def _mask(length: int, *, window: int | None, like: torch.Tensor, inner: str) -> torch.Tensor | None:
    """What one document may see; None where the attention function's own causality says it all."""
    is_windowed = window is not None and window < length
    if inner == "flash_attention_2" or (inner == "sdpa" and not is_windowed):
        return None
    position = torch.arange(length, device=like.device)
    distance = position[:, None] - position[None, :]
    visible = distance >= 0
    if window is not None and is_windowed:
        visible &= distance < window
    if inner == "sdpa":
        return visible[None, None]
    blocked = torch.finfo(like.dtype).min
    return torch.zeros_like(visible, dtype=like.dtype).masked_fill_(~visible, blocked)[None, None]


@contextlib.contextmanager
def documents_apart(model: PreTrainedModel) -> Iterator[Documents]:
    """Within this block the model's attention keeps the documents of `documents.lengths` apart.

    Raises ModelError where the model's attention is neither in transformers' registry nor known by its type.
    """
    documents = Documents(inner=str(model.config._attn_implementation))
    own = [module for module in model.modules() if type(module) in ALIBI_FORWARDS]
    if not own and not getattr(model, "_supports_attention_backend", False):
        cure = "set data.packing: false"
        raise ModelError(f"{type(model).__name__} cannot keep packed rows apart", where="data.packing", cure=cure)
    AttentionInterface.register(NAME, attend_documents)
    for module in model.modules():
        module.fledge_documents = documents
    for module in own:
        module.forward = MethodType(ALIBI_FORWARDS[type(module)], module)
    configs = _configs(model)
    for config, _ in configs:
        config._attn_implementation_internal = NAME
    try:
        yield documents
    finally:
        for config, before in configs:
            config._attn_implementation_internal = before
        for module in own:
            del module.forward
        for module in model.modules():
            del module.fledge_documents


def _configs(model: PreTrainedModel) -> list[tuple[Any, str]]:
    """Every config object that the model's modules read, with the attention it names now."""
    found = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    return [(config, config._attn_implementation) for config in found.values()]
