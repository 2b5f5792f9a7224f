"""Where the fused kernels are tried: on a GPU where there is one, else on the CPU, in C++ or Triton's interpreted.

The interpreter cuts bfloat16 off where a GPU rounds it, and works through a kernel element by element: float32 alone.
"""

import os

import pytest
import torch

from fledge.ops.choice import runs_on

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
IS_GPU = DEVICE.type == "cuda"
IS_INTERPRETED = not IS_GPU and os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = [torch.float32] + [torch.bfloat16] * (not IS_INTERPRETED) + [torch.float16] * IS_GPU
needs_kernels = pytest.mark.skipif(not runs_on(DEVICE), reason="neither a GPU nor a C++ compiler is there")
