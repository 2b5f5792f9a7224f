"""Activation checkpointing, block by block, on the instance: the backward pass computes each block again."""

import contextlib
import functools
from collections.abc import Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint

from fledge.models.facts import blocks


@contextlib.contextmanager
def checkpointed_blocks(model: nn.Module, *, is_on: bool) -> Iterator[None]:
    """Within this block only the input of each transformer block is kept for the backward pass.

    Random numbers need no care: dropout masks are keyed, so the second pass draws the first one's.
    """
    chosen = blocks(model) if is_on else []
    for module in chosen:
        module.forward = functools.partial(
            checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False, determinism_check="default"
        )
    try:
        yield
    finally:
        for module in chosen:
            del module.forward
