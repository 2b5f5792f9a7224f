"""Document-wise attention for the architectures outside transformers' attention registry: BLOOM and Falcon.

Both are chosen by the type of the attention module. Shapes as in documents.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.bloom.modeling_bloom import BloomAttention, dropout_add
from transformers.models.falcon.modeling_falcon import FalconAttention, apply_rotary_pos_emb

_Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, alibi: torch.Tensor | None, *, scale: float
) -> torch.Tensor:
    """Causal attention within one document. q [B,H,L,D], k and v [B,H or 1,L,D], alibi [B,H,1,L] -> [B,L,H*D]."""
    batch, heads, length, _ = query.shape
    key, value = (x.expand(-1, heads, -1, -1) for x in (key, value))
    if alibi is None:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=length > 1, scale=scale)
    else:
        future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu_(1)
        bias = alibi.to(query.dtype).expand(-1, -1, length, -1).masked_fill(future, float("-inf"))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
    return out.transpose(1, 2).reshape(batch, length, -1)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_each(
    spans: Sequence[tuple[int, int]], qkv: _Heads, alibi: torch.Tensor | None, *, scale: float
) -> torch.Tensor:
    """`_attend` of each span of positions: [B,T,H*D]. Not to be compiled, as in documents.py."""
    parts = []
    for start, end in spans:
        query, key, value = (x[:, :, start:end] for x in qkv)
        parts.append(_attend(query, key, value, None if alibi is None else alibi[..., : end - start], scale=scale))
    return torch.cat(parts, dim=1)


def bloom_attention(
    self: Any,
    hidden_states: torch.Tensor,
    residual: torch.Tensor,
    alibi: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """BloomAttention.forward, document by document. ALiBi counts key positions from each document's start.

    Softmax ignores what is added to a whole row, so slope * key position is slope * distance (arXiv 2108.12409).
    """
    batch, width, _ = hidden_states.shape
    qkv = self._reshape(self.query_key_value(hidden_states))
    bias = alibi.view(batch, self.num_heads, 1, -1)
    spans = self.fledge_documents.spans(width)
    output = self.dense(_attend_each(spans, qkv, bias, scale=self.inv_norm_factor))
    return dropout_add(output, residual, self.hidden_dropout, self.training), None


def falcon_attention(
    self: Any,
    hidden_states: torch.Tensor,
    alibi: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """FalconAttention.forward, document by document: rotary (7b) or ALiBi (rw), one or several key heads."""
    width = hidden_states.shape[1]
    query, key, value = (x.transpose(1, 2) for x in self._split_heads(self.query_key_value(hidden_states)))
    if alibi is None and position_embeddings is not None:
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    bias = None
    if alibi is not None:
        bias = alibi.view(hidden_states.shape[0], self.num_heads, 1, -1) * self.inv_norm_factor
    spans = self.fledge_documents.spans(width)
    return self.dense(_attend_each(spans, (query, key, value), bias, scale=self.inv_norm_factor)), None


ALIBI_FORWARDS: dict[type[nn.Module], Callable[..., Any]] = {
    BloomAttention: bloom_attention,
    FalconAttention: falcon_attention,
}
