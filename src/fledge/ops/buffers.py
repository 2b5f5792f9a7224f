"""Memory that is kept between micro-batches, so that no page is asked of the system twice."""

import ctypes
import math
import mmap
import os
from typing import Literal

import torch

SLAB = 64 << 20
"""Bytes asked of the system at once; on a CPU, what no tensor has touched yet costs nothing."""
_ALIGNMENT = 64
_LIBRARY = ctypes.CDLL(None) if os.name == "posix" else None


Life = Literal["step", "block", "head"]
"""How long what a buffer holds is needed: from the forward to the backward pass, within one block, within the head.
No block is under way while the head is, so both lie in the same memory."""


class Buffers:
    """Named tensors that are made once, large enough for `rows` positions, and then used again.

    A name has one live tensor at a time: taking it again gives the same memory. What is in it is whatever was left
    there. What is kept for a step is laid out anew by each `begin`, for micro-batches differ in what they keep. On a
    CPU the memory lies in huge pages where the system has them: a fresh allocation's page faults take longer than many
    of the operations that fill it, and a general allocator's holes add up.
    """

    def __init__(self, device: torch.device, *, rows: int = 0) -> None:
        self.device, self.rows = device, rows
        self._flat: dict[tuple[str, torch.dtype, Life], torch.Tensor] = {}
        self._own = _Slabs([], device, least=SLAB)
        shared: list[torch.Tensor] = []
        whole = 2 * SLAB  # takes the head whole, so that it and the blocks cover each other
        self._slabs: dict[Life, _Slabs] = {
            "step": self._own,
            "block": _Slabs(shared, device, least=whole),
            "head": _Slabs(shared, device, least=whole),
        }

    def begin(self) -> None:
        """A new micro-batch: what was kept of the last one is given up."""
        self._flat = {key: flat for key, flat in self._flat.items() if key[2] != "step"}
        self._own.clear()
        if self.device.type == "cpu":
            give_back()

    def take(self, name: str, *shape: int, dtype: torch.dtype, room: int = 0, life: Life = "block") -> torch.Tensor:
        """A contiguous tensor of this shape, its content undefined. `room` is a number of values known to be needed
        later, so that it need not grow.
        """
        size, key = math.prod(shape), (name, dtype, life)
        flat = self._flat.get(key)
        if flat is None or flat.numel() < size:
            grown = 0 if flat is None else flat.numel() + flat.numel() // 4
            flat = self._flat[key] = self._slabs[life].allocate(max(size, grown, room), dtype)
        return flat[:size].view(shape)

    def take_rows(self, name: str, *shape: int, dtype: torch.dtype, life: Life = "block") -> torch.Tensor:
        """[rows, ..], with room for as many rows as there can be, but where all is laid out anew anyway."""
        room = 0 if life == "step" else self.rows * math.prod(shape[1:])
        return self.take(name, *shape, dtype=dtype, room=room, life=life)

    @property
    def num_bytes(self) -> int:
        """What was asked of the system; what of it was never touched is not in memory."""
        return sum(slab.numel() for slab in (*self._own.slabs, *self._slabs["block"].slabs))


class _Slabs:
    """Takes memory from the first slab that has room left, asks for another where none has."""

    def __init__(self, slabs: list[torch.Tensor], device: torch.device, *, least: int) -> None:
        self.slabs, self.device, self.least = slabs, device, least
        self._used: list[int] = []

    def clear(self) -> None:
        """All of it is free again."""
        self._used = [0] * len(self.slabs)

    def allocate(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        size = -(-count * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        self._used += [0] * (len(self.slabs) - len(self._used))
        for number, slab in enumerate(self.slabs):
            if slab.numel() - self._used[number] >= size:
                break
        else:
            number = len(self.slabs)
            self.slabs.append(_pages(max(size, self.least), self.device))
            self._used.append(0)
        start = self._used[number]
        self._used[number] += size
        return self.slabs[number][start : start + count * dtype.itemsize].view(dtype)


def give_back() -> None:
    """Give back what was freed and lies among the C library's heap, where that can be asked: tens of megabytes after
    products, and after a loading as much as the model itself, which would count towards the peak.
    """
    trim = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _pages(size: int, device: torch.device) -> torch.Tensor:
    """Fresh memory of the system's, in huge pages where it has them; given back when the last view of it goes."""
    if device.type != "cpu":
        return torch.empty(size, dtype=torch.uint8, device=device)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)
