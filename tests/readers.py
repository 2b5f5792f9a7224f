"""The environments that read exports with other versions, as `make readers` sets them up."""

import os
from pathlib import Path

import pytest

from bench.readers_setup import is_there, python_of

ROOT = Path(__file__).resolve().parent.parent


def reader(name: str) -> str:
    """The Python of a reader; the test is skipped where it was not set up."""
    folder = Path(os.environ.get("FLEDGE_READERS", ROOT / ".readers"))
    if not is_there(folder, name):
        pytest.skip(f"the reader {name} is not set up here: make readers")
    return str(python_of(folder, name))
