"""Memory that is kept between micro-batches, so that no page is asked of the system twice."""

import math

import torch


class Buffers:
    """Named flat tensors that grow to the largest size asked for and are then used again.

    A name has one live tensor at a time: taking it again gives the same memory. What is in it is whatever was left
    there. Costs the largest size of each name; saves the page faults of a fresh allocation, which on a CPU take
    longer than many of the operations that fill it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._flat: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor of this shape, its content undefined."""
        size, key = math.prod(shape), (name, dtype)
        flat = self._flat.get(key)
        if flat is None or flat.numel() < size:
            self._flat.pop(key, None)
            del flat
            flat = self._flat[key] = torch.empty(size, dtype=dtype, device=self.device)
        return flat[:size].view(shape)

    @property
    def num_bytes(self) -> int:
        """What is held."""
        return sum(flat.numel() * flat.element_size() for flat in self._flat.values())
