"""What attention scores get added by key position (ALiBi), kept on each device that computes with it."""

from collections.abc import Callable

import torch


class PositionBias:
    """A length S and a device -> [heads,S] float32.

    Made once for the most positions asked for so far and cut from there: to bring it to a GPU anew for each
    micro-batch would wait, every time, for all that the GPU still has to do.
    """

    def __init__(self, build: Callable[[int], torch.Tensor]) -> None:
        self._build = build
        """S -> [heads,S] float32, in which a position's values do not depend on S."""
        self._held: dict[torch.device, torch.Tensor] = {}

    def __call__(self, length: int, device: torch.device) -> torch.Tensor:
        held = self._held.get(device)
        if held is None or held.shape[1] < length:
            held = self._held[device] = self._build(1 << (length - 1).bit_length()).to(device)
        return held[:, :length]
