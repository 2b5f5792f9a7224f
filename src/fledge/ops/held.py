"""Frozen weights that are not held as they are multiplied: in fewer bits, in host memory, or both.

Shapes: O outputs, I inputs of a linear. A weight is made whole just before a product, in memory that all share.
"""

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch

from fledge.ops.int8 import Int8
from fledge.ops.nf4 import Nf4, dequantize_nf4


class Scratch:
    """Memory on one device in which weights are made whole, one at a time: it grows to the largest."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._flat: dict[torch.dtype, torch.Tensor] = {}

    def take(self, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """[O,I], its content undefined; whatever was taken before is given up."""
        count, flat = shape[0] * shape[1], self._flat.get(dtype)
        if flat is None or flat.numel() < count:
            flat = self._flat[dtype] = torch.empty(count, dtype=dtype, device=self.device)
        return flat[:count].view(shape)


class Held(Protocol):
    """A weight [O,I] that can be made whole: codes or values, and a factor for each output where there is one."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""

    @property
    def scale(self) -> torch.Tensor | None:
        """[O] float32: what the products' outputs are multiplied by; None where the values are whole by themselves."""

    def whole(self) -> torch.Tensor:
        """[O,I] in `dtype`, to be multiplied by `scale`: until another weight is made whole."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldInt8:
    """Integers are exact in every format that has 8 bits of precision, so the scale is left to the outputs: cheaper,
    and no weight is rounded. Not in float16, whose range the products of bare integers may leave.
    """

    held: Int8
    dtype: torch.dtype
    scratch: Scratch

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.held.codes.shape
        return rows, columns

    @property
    def scale(self) -> torch.Tensor | None:
        return None if self.dtype == torch.float16 else self.held.scale

    def whole(self) -> torch.Tensor:
        values = self.scratch.take(self.shape, self.dtype).copy_(self.held.codes, non_blocking=True)
        return values.mul_(self.held.scale[:, None]) if self.scale is None else values


@dataclass(frozen=True, slots=True, eq=False)
class HeldNf4:
    """Half a byte a weight; each is rounded once to `dtype`."""

    held: Nf4
    shape: tuple[int, int]
    dtype: torch.dtype
    scratch: Scratch
    scale: None = field(default=None, init=False)

    def whole(self) -> torch.Tensor:
        device, held = self.scratch.device, self.held
        if held.codes.device != device:
            held = Nf4(*(part.to(device, non_blocking=True) for part in _parts(held)))
        return dequantize_nf4(held, self.scratch.take(self.shape, self.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class HeldValues:
    """The values as they are multiplied: what another one's `whole` gave, kept, for the same bits without the work; or,
    with a scratch, in another memory than the one they are multiplied in.
    """

    values: torch.Tensor
    scale: torch.Tensor | None = None
    scratch: Scratch | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape
        return rows, columns

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def whole(self) -> torch.Tensor:
        if self.scratch is None:
            return self.values
        return self.scratch.take(self.shape, self.dtype).copy_(self.values, non_blocking=True)


Weight: TypeAlias = torch.Tensor | Held


def whole(weight: Weight) -> torch.Tensor:
    """[O,I] as it is multiplied."""
    return weight if isinstance(weight, torch.Tensor) else weight.whole()


def scale_of(weight: Weight) -> torch.Tensor | None:
    """[O] float32: what the products' outputs are multiplied by; None for nothing."""
    return None if isinstance(weight, torch.Tensor) else weight.scale


def dequantized(weight: Held) -> torch.Tensor:
    """[O,I] the weight itself, in memory of its own: values times scale, rounded to its dtype."""
    values, scale = weight.whole(), weight.scale
    return values.clone() if scale is None else (values.float() * scale[:, None]).to(weight.dtype)


def _parts(held: Nf4) -> tuple[torch.Tensor, ...]:
    return held.codes, held.scale_codes, held.scale_sizes, held.scale_mean
