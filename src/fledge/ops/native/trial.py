"""The first use of the C++ kernels: whether they compile, load and compute here."""

import torch

from fledge.ops.buffers import Buffers
from fledge.ops.native.attention import attend
from fledge.ops.plan import Document, Shape, plan_attention


def computes(device: torch.device) -> bool:
    """Whether attention over two equal keys gives the mean of their values. Raises KernelError where they do not
    compile or load.
    """
    q, k = torch.zeros(2, 1, 1, 4, device=device), torch.zeros(2, 1, 4, device=device)
    v = torch.tensor([[[1.0] * 4], [[3.0] * 4]], device=device)
    out, sums = torch.empty_like(q), torch.empty(1, 2, device=device)
    plan = plan_attention([Document(0, 2)], heads=1)
    attend((q, k, v), shape=Shape(1, 1, 4, 1.0), plan=plan, buffers=Buffers(device), out=out, sums=sums)
    return torch.allclose(out.flatten(), torch.tensor([1.0] * 4 + [2.0] * 4, device=device))
