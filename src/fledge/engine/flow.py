"""What the blocks of one micro-batch share, and where their results lie.

Shapes: T packed positions, S of the encoder, H features, R rotated ones.
"""

from dataclasses import dataclass

import torch

from fledge.ops.buffers import Buffers
from fledge.ops.choice import WIDEST, fused
from fledge.ops.plan import Plan, Shape


@dataclass(frozen=True, slots=True)
class Slots:
    """Where a block's results lie: in buffers of its own, or in those that every block uses in turn."""

    outer: str
    inner: str


@dataclass(frozen=True, slots=True, eq=False)
class Across:
    """What a decoder attends to."""

    encoded: torch.Tensor
    """[S,H] what the encoder gives"""
    plan: Plan


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What the blocks of one micro-batch share."""

    plan: Plan
    turns: tuple[torch.Tensor, torch.Tensor] | None
    """cos and sin [T,R] float32, where positions are rotated."""
    buffers: Buffers
    dtype: torch.dtype
    across: Across | None = None
    kept: Buffers | None = None
    """The memory of what is kept, where it is longer than for one micro-batch."""

    @property
    def memory(self) -> Buffers:
        """The memory of what is kept."""
        return self.buffers if self.kept is None else self.kept

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """[rows, width] that is needed within one block."""
        return self.buffers.take_rows(name, *shape, dtype=self.dtype)

    def keep(self, name: str, *shape: int) -> torch.Tensor:
        """[rows, width] that may be needed until the backward pass."""
        return self.memory.take_rows(name, *shape, dtype=self.dtype, life="step")

    def sums(self, name: str, *, like: torch.Tensor, shape: Shape) -> torch.Tensor | None:
        """[heads,T] float32 that attention's gradient needs beside its result, for queries `like` [T,..]; None where
        it is computed anew, for want of fused kernels.
        """
        if shape.head_dim > WIDEST or fused("attention", like) is None:
            return None
        heads = shape.kv_heads * shape.groups
        return self.memory.take(name, heads, like.shape[0], dtype=torch.float32, life="step")
