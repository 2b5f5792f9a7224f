"""Where the fused kernels are tried: on a GPU where there is one, else interpreted on the CPU, in float32 alone.

The interpreter cuts bfloat16 off where a GPU rounds it, and works through a kernel element by element.
"""

import pytest
import torch

from fledge.ops.fused.choice import runs_on

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
IS_GPU = DEVICE.type == "cuda"
DTYPES = [torch.float32, torch.bfloat16, torch.float16] if IS_GPU else [torch.float32]
needs_kernels = pytest.mark.skipif(not runs_on(DEVICE), reason="runs in test_interpreted.py, or where there is a GPU")
