"""What all tests share: the folder of real data, where it lies beside the checkout."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing from threads, and busy machines lose much

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, tokenizers and templates; the test is skipped where it is absent."""
    folder = Path(os.environ.get("FLEDGE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("the shared folder is not beside this checkout")
    return folder


@pytest.fixture(autouse=True)
def _kernels_stay():
    """No test leaves the fused kernels refused, for the tests after it would compute without them."""
    yield
    choice = sys.modules.get("fledge.ops.choice")
    assert choice is None or not choice._REFUSED, "the tests after this one would compute without the kernels"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
