"""The smallest kernel: whether Triton can compile and run one, which takes a C compiler and a folder to write to."""

import torch
import triton
import triton.language as tl


@triton.jit
def _double(x, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(x + at, 2.0 * tl.load(x + at))


def computes(device: torch.device) -> bool:
    """Whether a kernel doubles a few numbers there. Raises what Triton does where it cannot compile or run it."""
    x = torch.ones(16, device=device)
    _double[1,](x, SIZE=16)
    return x.tolist() == [2.0] * 16
