"""On a CPU the kernels' tests run in a process of their own: Triton is told to interpret before it is loaded."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fused.devices import IS_GPU

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "attention": ["tests/fused/test_attention.py"],
    "operations": ["tests/fused/test_operations.py"],
    "not finite": ["tests/fused/test_not_finite.py"],
    "engine": ["tests/fused/test_engine.py"],
    "bytes kept": ["tests/unit/engine/test_keeping.py", "-k", "bytes_told and kernels and llama"],
}


@pytest.mark.slow
@pytest.mark.skipif(IS_GPU, reason="they run on the GPU")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("tests", TESTS.values(), ids=TESTS)
def test_the_kernels_pass_when_they_are_interpreted(tests):
    command = [sys.executable, "-m", "pytest", "-v", "-x", *tests]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
