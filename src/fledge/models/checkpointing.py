"""Activation checkpointing, block by block, on the instance: the backward pass computes each block again."""

import contextlib
import functools
from collections.abc import Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint

from fledge.models.blocks import blocks
from fledge.models.forwards import Forward, wrapped_forwards


@contextlib.contextmanager
def checkpointed_blocks(model: nn.Module, *, is_on: bool) -> Iterator[None]:
    """Within this block only the input of each transformer block is kept for the backward pass.

    Random numbers need no care: dropout masks are keyed, so the second pass draws the first one's.
    """
    with wrapped_forwards(blocks(model) if is_on else [], _checkpointed):
        yield


def _checkpointed(forward: Forward) -> Forward:
    return functools.partial(
        checkpoint, forward, use_reentrant=False, preserve_rng_state=False, determinism_check="default"
    )
