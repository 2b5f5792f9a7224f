"""Document-wise attention for the architectures outside transformers' attention registry: BLOOM and Falcon.

Both are chosen by the type of the attention module. Shapes as in documents.py.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.bloom.modeling_bloom import BloomAttention, dropout_add
from transformers.models.falcon.modeling_falcon import FalconAttention, apply_rotary_pos_emb


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
    query, key, value = self._reshape(self.query_key_value(hidden_states))
    bias = alibi.view(batch, self.num_heads, 1, -1)
    parts = [
        _attend(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            bias[..., : end - start],
            scale=self.inv_norm_factor,
        )
        for start, end in self.fledge_documents.spans(width)
    ]
    output = self.dense(torch.cat(parts, dim=1))
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
    parts = [
        _attend(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            None if bias is None else bias[..., : end - start],
            scale=self.inv_norm_factor,
        )
        for start, end in self.fledge_documents.spans(width)
    ]
    return self.dense(torch.cat(parts, dim=1)), None


ALIBI_FORWARDS: dict[type[nn.Module], Callable[..., Any]] = {
    BloomAttention: bloom_attention,
    FalconAttention: falcon_attention,
}
