"""The loss of a language model: a sum over supervised tokens, in float32.

Shapes: N positions, V vocabulary.
"""

import torch
import torch.nn.functional as F


def sum_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of -log softmax(logits)[label] over labels that are not -100.

    `logits` [N, V] of any float dtype, `labels` [N] int64, shifted already. Returns a float32 scalar.
    The logits are cast to float32 first, as transformers' causal loss does.
    """
    return F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
