"""torch.compile of each transformer block, on the instance."""

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import nn

from fledge.errors import ModelError
from fledge.models.blocks import blocks
from fledge.models.forwards import wrapped_forwards

VARIANTS = 64
"""Of one block's code, before torch would go on without compiling and say so in a log alone."""


@contextlib.contextmanager
def compiled_blocks(model: nn.Module, *, is_on: bool) -> Iterator[None]:
    """Within this block each transformer block is compiled when it is first computed, for sizes of any kind.

    Blocks of one kind share what is compiled. Raises ModelError where torch cannot compile here.
    """
    if not is_on:
        yield
        return
    _try(next(model.parameters()).device)
    limited = torch._dynamo.config.patch(recompile_limit=VARIANTS)
    with limited, wrapped_forwards(blocks(model), functools.partial(torch.compile, dynamic=True)):
        try:
            yield
        finally:
            torch.compiler.reset()


def _try(device: torch.device) -> None:
    """Compile a sum, which takes what a block takes: a compiler and a folder to write to."""
    x = torch.ones(8, device=device)
    try:
        torch.compile(lambda x: x + x.sin())(x)
    except torch._dynamo.exc.TorchDynamoException as error:
        what = f"torch cannot compile here ({str(error).strip().partition(chr(10))[0][:200]})"
        cure = "write train.kernels: auto, or install a C++ compiler"
        raise ModelError(what, where="train.kernels: compiled", cure=cure) from error
