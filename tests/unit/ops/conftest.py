"""torch's own operations are what is tried here: the kernels that stand beside them are compared in tests/fused."""

import pytest

from fledge.ops.choice import unfused

OF_KERNELS = ("test_fused_choice", "test_native_build")


@pytest.fixture(autouse=True)
def _by_torch(request):
    if request.module.__name__.rpartition(".")[2] in OF_KERNELS:
        yield
        return
    with unfused():
        yield
