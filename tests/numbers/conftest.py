"""What the tests of numbers share: a place for the models that they make."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A folder for the tests of one module."""
    return tmp_path_factory.mktemp("models")
