"""The engine is tried both ways: by torch's own operations, and by the kernels that a machine runs."""

import contextlib

import pytest
import torch

from fledge.ops.choice import runs_on, unfused


@pytest.fixture(autouse=True, params=["torch", "kernels"])
def each_way(request):
    """Torch's operations, then the kernels, where there are any."""
    if request.param == "kernels" and not runs_on(torch.device("cpu")):
        pytest.skip("no kernels run here")
    with unfused() if request.param == "torch" else contextlib.nullcontext():
        yield
