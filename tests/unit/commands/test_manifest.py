"""What a run stood on, and what is told of it when the run goes on elsewhere."""

import json

import pytest
import torch

from fledge.commands.manifest import changes_since, hardware_of, versions

CPU = torch.device("cpu")


def manifest(**changes):
    hardware = hardware_of(CPU, world_size=2, computes="torch's operations") | changes
    return json.loads(json.dumps({"versions": versions(), "hardware": hardware}))


def test_the_same_machine_has_not_changed():
    assert changes_since(manifest(), hardware_of(CPU, world_size=2, computes="torch's operations")) == []


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("machine", "abacus", "machine abacus, now "),
        ("instructions", "NEON", "CPU instructions NEON, now "),
        ("gpu", "NVIDIA T4", "GPU NVIDIA T4, now none"),
        ("computes", "C++ kernels 12345678", "each step by C++ kernels 12345678, now torch's operations"),
        ("world_size", 4, "4 processes, now 2"),
    ],
)
def test_what_has_changed_is_told(name, value, told):
    (said,) = changes_since(manifest(**{name: value}), hardware_of(CPU, world_size=2, computes="torch's operations"))
    assert said.startswith(told)


def test_cores_and_threads_are_settled_elsewhere_and_a_manifest_from_before_may_say_less():
    hardware = hardware_of(CPU, world_size=2, computes="torch's operations")
    before = manifest(cores=999, threads=998)
    del before["hardware"]["computes"], before["hardware"]["instructions"]
    assert changes_since(before, hardware) == []
    before["versions"] |= {"torch": "1.0", "left-pad": "2.0"}
    assert changes_since(before, hardware) == [f"torch 1.0, now {torch.__version__}", "left-pad 2.0, now not there"]
