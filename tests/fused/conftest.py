"""How a GPU computes while the kernels are compared with their references."""

import pytest
import torch

from fledge.runtime.device import make_deterministic
from tests.fused.devices import DEVICE, IS_GPU


@pytest.fixture(autouse=IS_GPU)
def _exact_float32():
    """Without TF32, which rounds the reference, and as a training computes: the same bits each time."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    make_deterministic(DEVICE)
    yield
    torch.use_deterministic_algorithms(False)
