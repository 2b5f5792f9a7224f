"""Asks llama.cpp, in a process of its own, what it makes of GGUF files; tests are skipped where there is none."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.numbers.gguf_models import ROWS, WRITTEN

SCRIPT = Path(__file__).with_name("llama_outside.py")


def interpreter() -> str:
    """A python that has llama_cpp: this one, or the one that FLEDGE_LLAMA_PYTHON names."""
    if named := os.environ.get("FLEDGE_LLAMA_PYTHON"):
        return named
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed here, and FLEDGE_LLAMA_PYTHON names no python that has it")
    return sys.executable


def _ask(**request: Any) -> dict[str, Any]:
    body = {"logits": [], "words": [], "texts": [], "rows": ROWS, "written": WRITTEN} | request
    done = subprocess.run([interpreter(), str(SCRIPT)], input=json.dumps(body), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def llama_logits(paths: Sequence[Path]) -> list[list[torch.Tensor]]:
    """Of each file the logits [T,V] of each of ROWS, of an encoder-decoder those of WRITTEN."""
    _ask(logits=[str(path) for path in paths])
    found = []
    for path in paths:
        with np.load(f"{path}.npz") as arrays:
            found.append([torch.from_numpy(arrays[f"arr_{place}"]) for place in range(len(ROWS))])
    return found


def llama_words(path: Path, texts: Sequence[str]) -> dict[str, Any]:
    """`around` and `bare`: ids of each text; `shown`: the latter as text; `ends`: ids that end answers; `template`."""
    told: dict[str, Any] = _ask(words=[str(path)], texts=list(texts))[str(path)]
    return told
