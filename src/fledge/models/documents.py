"""Attention that keeps packed documents apart: the linears see one long row, attention sees each document alone.

Shapes: B rows, H query heads, K key/value heads, T positions of a row, L positions of one document, D head size.

Nothing is changed class-wide: one attention function is registered with transformers under a name of ours, and
architectures that do not go through that registry get a forward of ours on the instance, undone on exit.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask
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


@dataclass(slots=True, eq=False)
class DocumentMask:
    """What the library says a layer's positions may see, where that is more than causality: a window, or chunks."""

    visible: Callable[..., Any]
    """The library's mask function over batch, head, query and key index."""
    local_size: int | None
    """A document shorter than this is seen whole by each of its positions, as far as causality goes."""
    needs_vmap: bool
    dense: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    """[1,1,L,L] of each document that was asked for: the layers of one kind share them."""

    def within(self, start: int, end: int, *, device: torch.device) -> torch.Tensor | None:
        """[1,1,L,L] bool of the positions from `start` to `end`; None where causality says it all."""
        if self.local_size is not None and end - start < self.local_size:
            return None
        if (start, end) not in self.dense:
            length = end - start
            made = sdpa_mask(
                batch_size=1,
                q_length=length,
                kv_length=length,
                q_offset=start,
                kv_offset=start,
                mask_function=self.visible,
                allow_is_causal_skip=False,
                use_vmap=self.needs_vmap,
                device=device,
            )
            assert made is not None, "asked not to be left out"
            self.dense[start, end] = made
        return self.dense[start, end]


def document_mask(
    *, mask_function: Callable[..., Any], local_size: int | None = None, use_vmap: bool = False, **options: Any
) -> DocumentMask | None:
    """What the library calls where it would make a mask: none is made until a document asks. None is causality alone.

    The library finds the documents of a packed row by its positions, so its function answers for each position by its
    place in the document: a chunk begins where it would begin in the row alone.
    """
    is_causal = "allow_is_bidirectional_skip" not in options
    is_plain = is_causal and local_size is None and not use_vmap
    return None if is_plain else DocumentMask(mask_function, local_size if is_causal else None, use_vmap)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_documents(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: DocumentMask | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The library's own attention, called once per document. q [B,H,T,D], k and v [B,K,T,D] -> [B,T,H,D].

    torch.compile leaves it as it is, or it would compile it anew for every row's documents.
    """
    documents: Documents = module.fledge_documents
    options.pop("position_ids", None)  # the whole row's: flash attention would cut a document by them
    assert attention_mask is None or isinstance(attention_mask, DocumentMask), "a mask of the model's own"
    attend = _inner(module, documents.inner)
    outputs = []
    for start, end in documents.spans(query.shape[2]):
        part = slice(start, end)
        mask = _mask(attention_mask, start, end, like=query, inner=documents.inner)
        outputs.append(attend(module, query[:, :, part], key[:, :, part], value[:, :, part], mask, **options)[0])
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), None


def _inner(module: nn.Module, name: str) -> Callable[..., Any]:
    """The attention function that the model would have called without us."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)


def _mask(found: DocumentMask | None, start: int, end: int, *, like: torch.Tensor, inner: str) -> torch.Tensor | None:
    """What one document may see; None where the attention function's own causality, and its window, say it all."""
    if inner == "flash_attention_2":
        return None
    visible = None if found is None else found.within(start, end, device=like.device)
    if inner == "sdpa":
        return visible
    if visible is None:
        position = torch.arange(end - start, device=like.device)
        visible = (position[:, None] >= position[None, :])[None, None]
    blocked = torch.finfo(like.dtype).min
    return torch.zeros_like(visible, dtype=like.dtype).masked_fill_(~visible, blocked)


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
    AttentionMaskInterface.register(NAME, document_mask)
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
