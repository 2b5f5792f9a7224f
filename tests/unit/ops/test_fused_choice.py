"""Which devices run the fused kernels, and what happens where Triton is there and cannot work."""

import os
import subprocess
import sys

import pytest
import torch

from fledge.ops import choice

CPU = torch.device("cpu")
SCRIPT = """
import torch
from fledge.ops import choice
print(choice.why_not(torch.device("cpu")))
"""


def test_a_cpu_runs_none_and_says_so():
    if os.environ.get("TRITON_INTERPRET") != "1":
        assert choice.why_not(CPU) == "a CPU runs none"
        assert not choice.runs_on(CPU)
    assert choice.why_not(torch.device("meta")) == "they are written for CUDA"


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        ("", "None"),
        ("choice._module('trial')._double = None", "Triton cannot compile here (TypeError: "),
        ("import importlib.util; importlib.util.find_spec = lambda name: None", "Triton is not installed"),
    ],
    ids=["sound", "broken", "absent"],
)
def test_a_kernel_is_tried_before_any_is_used(break_it, why):
    pytest.importorskip("triton")
    lines = SCRIPT.strip().splitlines()
    script = "\n".join([*lines[:2], break_it, *lines[2:]])
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(why), done.stdout + done.stderr


def test_what_was_refused_is_not_used_again(monkeypatch):
    monkeypatch.setattr(choice, "_why_not", lambda device: None)
    monkeypatch.setattr(choice, "_REFUSED", {})
    assert choice.runs_on(CPU)
    choice.refuse(CPU, "it does not fit")
    assert choice.why_not(CPU) == "it does not fit"
    assert choice.fused("norm", torch.zeros(1)) is None
