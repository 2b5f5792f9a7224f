"""Rotary positions in place (arXiv 2104.09864), as transformers pairs them: (x1, x2) -> (x1 c - x2 s, x2 c + x1 s).

Shapes: T positions, any number of heads, D features of a head, R rotated features (the first R of D).
"""

import torch

from fledge.ops.buffers import Buffers
from fledge.ops.choice import fused

Turns = tuple[torch.Tensor, torch.Tensor]
"""cos and sin [T,R], float32."""


def rotate(x: torch.Tensor, turns: Turns, *, buffers: Buffers, back: bool = False) -> None:
    """Rotate x [T,..,D] in place. `back` is the transpose: what a gradient needs."""
    cos, sin = turns
    if (kernels := fused("rotary", x)) is not None:
        kernels.rotate(x, turns, back=back)
        return
    half = cos.shape[-1] // 2
    c, s = (_among_heads(turn[:, :half], x) for turn in (cos, -sin if back else sin))
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = [buffers.take(f"rotary.{name}", *first.shape, dtype=torch.float32) for name in ("first", "second")]
    torch.mul(first, c, out=turned[0]).addcmul_(second, s, value=-1.0)
    torch.mul(second, c, out=turned[1]).addcmul_(first, s)
    first.copy_(turned[0])
    second.copy_(turned[1])


def _among_heads(turn: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return turn.view(turn.shape[0], *[1] * (x.dim() - 2), turn.shape[1])


def reference_rotate(x: torch.Tensor, turns: Turns) -> torch.Tensor:
    """The same, as plain differentiable torch."""
    cos, sin = turns
    width = cos.shape[-1]
    part, rest = x[..., :width], x[..., width:]
    turned = torch.cat((-part[..., width // 2 :], part[..., : width // 2]), dim=-1)
    return torch.cat((part * _among_heads(cos, x) + turned * _among_heads(sin, x), rest), dim=-1)
