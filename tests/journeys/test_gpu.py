"""On a GPU: every number format trains near the CPU's float32, and a run repeats and resumes to the bit."""

import json
from pathlib import Path

import pytest
import torch

from fledge.adapters.attach import attach
from fledge.commands.train import train
from fledge.config.lora import LoraSection
from fledge.config.model import ModelConfig
from fledge.models.load import load_base
from fledge.models.placement import place
from fledge.rundir import RunDir, read_events, read_steps
from tests.journeys.killing import train_through_kills
from tests.runs import load, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
STEPS = 8


@pytest.fixture
def run_of(tmp_path: Path):
    """Trains a tiny model and returns its run folder."""
    rows = write_rows(tmp_path / "rows.jsonl")

    def run(name: str, *, architecture: str = "llama", **changes) -> RunDir:
        base = tiny_folder(architecture, tmp_path / architecture)
        content = recipe_dict(base, rows, tmp_path / name, train__max_steps=STEPS, **changes)
        return RunDir(train(load(tmp_path / f"recipe-{name}", content)).run)

    return run


def losses(run: RunDir) -> list[float]:
    return [event["loss"] for event in read_steps(run.events)]


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize("architecture", ["llama", "bloom", "gemma2", "falcon-rw"])
def test_float32_on_a_gpu_is_the_cpus(run_of, architecture, engine):
    on_cpu = run_of("cpu", architecture=architecture, model__placement="cpu")
    on_gpu = run_of("gpu", architecture=architecture, model__placement="gpu", train__engine=engine)
    assert losses(on_gpu) == pytest.approx(losses(on_cpu), abs=1e-4)


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_follows_float32(run_of, dtype, engine):
    exact = run_of("exact", model__placement="gpu")
    half = run_of("half", model__placement="gpu", model__dtype=dtype, train__engine=engine)
    assert losses(half) == pytest.approx(losses(exact), abs=0.05)


def test_float16_tells_its_overflows(run_of, monkeypatch):
    monkeypatch.setattr("fledge.runtime.precision.DynamicScaler.START", 2.0**28)
    run = run_of("overflowing", model__placement="gpu", model__dtype="float16")
    assert [event for event in read_events(run.events) if event["event"] == "skipped_step"]
    assert len(losses(run)) == STEPS


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_two_runs_are_the_same_to_the_bit(run_of, dtype, engine):
    runs = [run_of(name, model__placement="gpu", model__dtype=dtype, train__engine=engine) for name in ("one", "other")]
    digests = {json.loads(run.summary.read_text())["adapter_sha256"] for run in runs}
    assert len(digests) == 1


def test_a_killed_run_ends_with_the_same_bits(run_of, tmp_path: Path):
    whole = run_of("whole", model__placement="gpu", model__dtype="bfloat16")
    rows, base = tmp_path / "rows.jsonl", tmp_path / "llama"
    changes = {"model__placement": "gpu", "model__dtype": "bfloat16", "train__max_steps": STEPS}
    recipe = write_recipe(tmp_path / "killed.yaml", recipe_dict(base, rows, tmp_path / "killed", **changes))
    train_through_kills(recipe, tmp_path / "killed", kills=2, seed=1)
    digests = {json.loads(run.summary.read_text())["adapter_sha256"] for run in (whole, RunDir(tmp_path / "killed"))}
    assert len(digests) == 1


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_base_trains_as_on_the_cpu(run_of, kind, engine):
    found = {
        placement: losses(run_of(placement, train__engine=engine, model__quantization=kind, model__placement=placement))
        for placement in ("cpu", "gpu")
    }
    assert found["gpu"] == pytest.approx(found["cpu"], abs=1e-4)


@pytest.mark.parametrize("kind", ["none", "int8", "nf4"])
def test_what_does_not_fit_streams_from_host_memory_and_computes_the_same(tmp_path, kind):
    config = ModelConfig(name_or_path=str(tiny_folder("llama", tmp_path)), dtype="float32", quantization=kind)
    device, found = torch.device("cuda"), []
    for share in (float("inf"), 1.0):
        base = load_base(config, device=torch.device("cpu"))
        size = sum(p.numel() * p.element_size() for p in base.model.parameters())
        streamed = place(base.model, device, room=share * size)
        assert bool(streamed) == (share == 1.0)
        adapted = attach(base.model, LoraSection(r=4, init_lora_weights="gaussian"), facts=base.facts, seed=0)
        trained = [p for p in adapted.model.parameters() if p.requires_grad]
        assert {p.device.type for p in trained} == {"cuda"}
        logits = adapted.model(input_ids=torch.arange(3, 20, device=device)[None]).logits
        found.append([logits.detach(), *torch.autograd.grad(logits.square().sum(), trained)])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*found, strict=True))
