"""kernels: compiled computes what the library's modules compute, and says so where it cannot."""

import json
import shutil

import pytest
import torch

from fledge.commands.train import train
from fledge.errors import ModelError
from fledge.models.compiling import compiled_blocks
from fledge.rundir import RunDir, read_steps
from tests.journeys.killing import steps_of, train_through_kills
from tests.runs import fledge, load, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"),
]
PLAIN = {"train__engine": "plain", "train__micro_batch_rows": 3, "lora__lora_dropout": 0.1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    return folder, write_rows(folder / "rows.jsonl")


def recipe_of(place, architecture: str, name: str, **changes):
    folder, rows = place
    base = folder / architecture
    if not base.exists():
        tiny_folder(architecture, base)
    return recipe_dict(base, rows, folder / name, **(PLAIN | changes))


def losses_of(place, architecture: str, name: str, **changes) -> list[float]:
    train(load(place[0] / f"recipe-{name}", recipe_of(place, architecture, name, **changes)))
    return [step["loss"] for step in read_steps(RunDir(place[0] / name).events)]


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("llama", {}), ("llama", {"train__gradient_checkpointing": True}), ("bloom", {}), ("falcon-7b", {})],
    ids=["llama", "llama, recomputed", "bloom", "falcon"],
)
def test_the_losses_are_those_without(architecture, changes, place):
    name = f"{architecture}-{len(changes)}"
    plain = losses_of(place, architecture, f"{name}-plain", **changes)
    before = sum(torch._dynamo.utils.counters["frames"].values())
    compiled = losses_of(place, architecture, f"{name}-compiled", train__kernels="compiled", **changes)
    assert compiled == pytest.approx(plain, abs=1e-5)
    assert len(compiled) == 6
    assert sum(torch._dynamo.utils.counters["frames"].values()) > before


def test_a_killed_run_ends_with_the_same_bits(place):
    folder = place[0]
    content = {name: recipe_of(place, "llama", name, train__kernels="compiled") for name in ("whole", "killed")}
    files = {name: write_recipe(folder / f"{name}.yaml", recipe) for name, recipe in content.items()}
    fledge("train", str(files["whole"]))
    outcome = train_through_kills(files["killed"], folder / "killed", kills=2, seed=3)
    assert outcome.kills
    summary = json.loads((folder / "whole" / "summary.json").read_text())
    assert outcome.summary["adapter_sha256"] == summary["adapter_sha256"]
    assert outcome.steps == steps_of(folder / "whole")


def test_where_there_is_no_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/no/such/compiler"))
    torch.compiler.reset()
    with (
        pytest.raises(ModelError, match="torch cannot compile here") as caught,
        compiled_blocks(torch.nn.Linear(2, 2), is_on=True),
    ):
        pass
    assert "install a C++ compiler" in str(caught.value)
