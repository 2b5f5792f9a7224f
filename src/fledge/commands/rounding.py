"""What rounding alone does to a model: the yardstick of every comparison in a number format with few digits."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def off_by_rounding(model: Any, *, seed: int) -> Iterator[None]:
    """Within it each value that a layer with weights gives is off by its format's precision, this way or that."""
    generator = torch.Generator().manual_seed(seed)

    def nudge(_module: torch.nn.Module, *given_and_out: Any) -> Any:
        out = given_and_out[1]
        if not (isinstance(out, torch.Tensor) and out.is_floating_point()):
            return out
        signs = torch.randint(0, 2, out.shape, generator=generator).to(out.device) * 2 - 1
        return (out.float() * (1 + signs * torch.finfo(out.dtype).eps)).to(out.dtype)

    layers = [m for m in model.modules() if next(m.children(), None) is None and any(True for _ in m.parameters())]
    hooks = [layer.register_forward_hook(nudge) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
