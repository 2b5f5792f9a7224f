"""Forwards that are wrapped on the instance, and what was there put back."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextlib.contextmanager
def wrapped_forwards(modules: Sequence[nn.Module], wrap: Callable[[Forward], Forward]) -> Iterator[None]:
    """Within this block each module's forward is `wrap` of it."""
    before = [module.__dict__.get("forward") for module in modules]
    for module in modules:
        module.forward = wrap(module.forward)
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            del module.forward
            if own is not None:
                module.forward = own
