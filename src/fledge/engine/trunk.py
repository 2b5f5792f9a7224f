"""What the micro-batches of a step begin with is computed once, as a trunk that all of them attend to.

They take its keys and values, and what they send back to these, added up, is its gradient.

Shapes: P positions of the trunk, T of a micro-batch beyond it, H features, K key/value heads, D features of a head.
"""

from dataclasses import dataclass, field

import torch

from fledge.ops.attention import Projections
from fledge.ops.buffers import Buffers


@dataclass(frozen=True, slots=True, eq=False)
class Roots:
    """Keys and values of one block of the trunk, and where micro-batches add up the gradients of these."""

    key: torch.Tensor
    """[P,K,D], rotated where positions are"""
    value: torch.Tensor
    """[P,K,D]"""
    key_gradient: torch.Tensor
    """[P,K,D] float32, before rotating back"""
    value_gradient: torch.Tensor
    """[P,K,D] float32"""

    @property
    def positions(self) -> int:
        """P"""
        return self.key.shape[0]

    def put_before(self, qkv: Projections) -> None:
        """Write them into the first positions of a micro-batch's [P+T,..], which has no queries there."""
        _, k, v = (part[: self.positions] for part in qkv)
        k.copy_(self.key)
        v.copy_(self.value)

    def make_room(self, gradients: Projections) -> None:
        """Zeros into the first positions of a micro-batch's [P+T,..], where what it sends back is added."""
        for part in gradients[1:]:
            part[: self.positions].zero_()

    def take_back(self, gradients: Projections) -> None:
        """Add up what a micro-batch sends to its first positions, of its gradients [P+T,..]."""
        _, dk, dv = (part[: self.positions] for part in gradients)
        self.key_gradient.add_(dk)
        self.value_gradient.add_(dv)

    def hand_on(self, gradients: Projections) -> None:
        """Add what was sent to the trunk's own gradients [P,..]."""
        _, dk, dv = gradients
        dk.add_(self.key_gradient)
        dv.add_(self.value_gradient)


@dataclass(slots=True, eq=False)
class Trunk:
    """The trunk of the step under way, whose blocks are added as they are computed."""

    positions: int
    """P"""
    roots: list[Roots] = field(default_factory=list)
    """Of each block."""
    out: torch.Tensor | None = None
    """[P,H] what its last block gives, until a micro-batch closes it; a backward pass from here, of zeros, is the
    trunk's."""


@dataclass(frozen=True, slots=True, eq=False)
class OnTrunk:
    """What the blocks of one forward pass have to do with a trunk."""

    base: Trunk | None = None
    """What they attend to."""
    closes: bool = False
    """Whether the backward pass goes on through it."""
    grown: Trunk | None = None
    """Where they are the trunk's own."""

    @property
    def positions(self) -> int:
        """P"""
        return 0 if self.base is None else self.base.positions

    @property
    def closing(self) -> torch.Tensor | None:
        """[P,H] where the backward pass goes on."""
        out = self.base.out if self.base is not None and self.closes else None
        return out if out is not None and out.requires_grad else None


NO_TRUNK = OnTrunk()


def has_trunk_on(kind: str) -> bool:
    """Whether steps on this kind of device have trunks. A GPU takes large micro-batches, which share by themselves, and
    would wait for the many small kernels of a trunk.
    """
    return kind == "cpu"


def roots_of(number: int, qkv: Projections, *, buffers: Buffers) -> Roots:
    """Those of block `number`, copied off what its attention takes, with no gradient yet."""

    def take(name: str, like: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
        return buffers.take(f"{number}.{name}", *like.shape, dtype=dtype, life="step")

    _, k, v = qkv
    key, value = (take(name, part, dtype=part.dtype).copy_(part) for name, part in (("key", k), ("value", v)))
    sums = [take(f"{name}_sum", part, dtype=torch.float32).zero_() for name, part in (("key", k), ("value", v))]
    return Roots(key, value, *sums)
