"""What a language model is made of, as values: all that the engine knows of an architecture.

Shapes: T packed positions, S of them in an encoder, H features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from fledge.ops.activation import Activation
from fledge.ops.cross_entropy import Head
from fledge.ops.lora_linear import Linear
from fledge.ops.norm import Norm
from fledge.ops.plan import Shape

Split = Callable[[tuple[torch.Tensor, ...]], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""What the projections give, as views q [T,K,G,D], k and v [T,K,D] of it; the same for their gradients."""


class Embed(Protocol):
    """Token ids and positions [1,T] -> [1,T,H]."""

    def __call__(self, input_ids: torch.Tensor, *, position_ids: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """Projections of one input, attention, and the projection of what it gives."""

    projections: tuple[Linear, ...]
    split: Split
    shape: Shape
    out: Linear
    is_rotary: bool


@dataclass(frozen=True, slots=True, eq=False)
class CrossAttention:
    """x + out(attention of norm(x) to what the encoder gives); one head of keys and values for each of queries."""

    norm: Norm
    query: Linear
    key: Linear
    value: Linear
    shape: Shape
    out: Linear


@dataclass(frozen=True, slots=True, eq=False)
class Mlp:
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)) where there is a gate."""

    gate: Linear | None
    up: Linear
    down: Linear
    activation: Activation


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """sequential: x + attention(norm(x)), then + mlp(norm(that)). parallel: x + attention(norm(x)) + mlp(norm(x)).
    An encoder-decoder's decoder attends to what the encoder gives between the two.

    `after_attention` and `after_mlp` normalise what is added (Gemma 2). A parallel block without `before_mlp` gives
    both the same normalised input.
    """

    before_attention: Norm
    attention: Attention
    after_attention: Norm | None
    before_mlp: Norm | None
    mlp: Mlp
    after_mlp: Norm | None
    is_parallel: bool
    cross: CrossAttention | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """What a decoder attends to: token ids [1,S] -> normalised hidden states [S,H], each position seeing all."""

    embed: Embed
    blocks: tuple[Block, ...]
    norm: Norm


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A model between its token ids and its last normalised hidden states, and the head after them."""

    embed: Embed
    """Token ids and positions [1,T] -> [1,T,H]; the library's own modules, differentiable where they are trained."""
    rotary: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None
    """A tensor that names device and number format, and positions [1,T] -> cos and sin [1,T,R]; None where no position
    is rotated."""
    blocks: tuple[Block, ...]
    norm: Norm
    head: Head | None
    """None where the head is trained: then the library's own is used."""
    logits: Callable[[torch.Tensor], torch.Tensor]
    """The library's head with what follows it: hidden [N,H] -> logits [N,V]."""
    encoder: Encoder | None = None
    """None for a causal model."""

    @property
    def all_blocks(self) -> tuple[Block, ...]:
        """The encoder's blocks, then the others: the order in which they are numbered and computed."""
        return self.blocks if self.encoder is None else (*self.encoder.blocks, *self.blocks)


def linears(block: Block) -> tuple[Linear, ...]:
    """Every linear of a block, in the order in which gradients are returned."""
    cross, mlp = block.cross, block.mlp
    across = () if cross is None else (cross.query, cross.key, cross.value, cross.out)
    gate = () if mlp.gate is None else (mlp.gate,)
    return (*block.attention.projections, block.attention.out, *across, *gate, mlp.up, mlp.down)


def adapters(block: Block) -> list[torch.nn.Parameter]:
    """A and B of every adapter of a block, in order."""
    return [p for layer in linears(block) if layer.lora is not None for p in (layer.lora.a, layer.lora.b)]
