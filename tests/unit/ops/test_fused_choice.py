"""Which devices run the fused kernels, and what happens where a compiler is there and cannot work."""

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


def test_other_devices_than_cpus_and_cuda_have_none():
    assert choice.why_not(torch.device("meta")) == "there are none for it"


def test_a_number_format_or_an_operation_that_a_cpu_has_no_kernel_for_is_computed_without(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(choice, "_why_not", lambda device: None)
    assert choice.fused("attention", torch.zeros(1)) is not None
    assert choice.fused("attention", torch.zeros(1, dtype=torch.float16)) is None
    assert choice.fused("no such operation", torch.zeros(1)) is None


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        ("", "None"),
        ("choice._module(choice.TRITON, 'trial')._double = None", "Triton cannot compile here (TypeError: "),
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
