"""Training on a quantised base: the engine as the library, near the full base's losses, and nothing moves it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fledge.adapters.attach import attach
from fledge.commands.engine import build_engine
from fledge.commands.proof import disagreement, pair_disagreement
from fledge.commands.train import train
from fledge.config.lora import LoraSection
from fledge.config.model import ModelConfig
from fledge.models.load import load_base
from fledge.models.placement import keep_whole, place
from fledge.ops.frozen_linear import FrozenLinear
from fledge.rundir import read_events, read_steps
from tests.journeys.killing import train_through_kills
from tests.runs import load, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = ("int8", "nf4")
WITHIN = {"int8": 0.005, "nf4": 0.02}
"""How far a loss may be from the bfloat16 base's."""


def losses(recipe_folder, content):
    result = train(load(recipe_folder, content))
    return [event["loss"] for event in read_steps(result.run / "events.jsonl")], result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["bloom", "llama", "t5", "gemma2", "falcon-7b", "gpt2"])
def test_the_engine_computes_what_the_library_does_on_the_same_codes(architecture, kind, tmp_path):
    folder = str(tiny_folder(architecture, tmp_path / "base"))
    config = ModelConfig(name_or_path=folder, dtype="float32", quantization=kind)
    base = load_base(config, device=CPU)
    lora = LoraSection(r=4, init_lora_weights="gaussian")
    adapted = attach(base.model, lora, facts=base.facts, seed=0)
    assert sum(isinstance(module, FrozenLinear) for module in adapted.model.modules()) >= 8
    engine = build_engine(adapted.model, device=CPU, rows=0)
    told = (
        pair_disagreement(engine, adapted.model)
        if base.facts.is_encoder_decoder
        else disagreement(engine, adapted.model, takes_positions=base.facts.takes_positions)
    )
    assert told is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_the_fast_engine_and_the_librarys_modules_train_alike(architecture, kind, tmp_path):
    folder, rows = tiny_folder(architecture, tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    found = {}
    for engine in ("fast", "plain"):
        content = recipe_dict(folder, rows, tmp_path / engine, model__quantization=kind, train__engine=engine)
        found[engine], _ = losses(tmp_path, content)
    assert len(found["fast"]) == 6
    assert found["fast"] == pytest.approx(found["plain"], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_stay_near_those_of_the_full_base(kind, tmp_path):
    folder, rows = tiny_folder("llama", tmp_path / "base"), ROOT / "tests" / "samples" / "alpaca.json"
    found = {}
    for quantization in ("none", kind):
        content = recipe_dict(folder, rows, tmp_path / quantization, train__max_steps=40, train__learning_rate=1e-3)
        content["model"] |= {"dtype": "bfloat16", "quantization": quantization}
        content["data"] |= {"train": {"path": str(rows), "format": "alpaca"}, "max_length": 256}
        found[quantization], _ = losses(tmp_path, content)
    apart = [abs(a - b) / b for a, b in zip(found[kind], found["none"], strict=True)]
    assert len(apart) == 40
    assert max(apart) <= WITHIN[kind]
    assert found[kind][-1] < found[kind][0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_copy_and_an_evaluation_in_between_change_no_bit(kind, tmp_path):
    folder, rows = tiny_folder("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    held_out = {"data__validation": {"path": str(write_rows(tmp_path / "few.jsonl", count=6)), "format": "completion"}}
    found = {}
    for name, more in {
        "plain": {},
        "kept": {"model__keep_dequantized": True},
        "often": {"evaluate__every_steps": 1, **held_out},
        "seldom": {"evaluate__every_steps": 1000, **held_out},
    }.items():
        content = recipe_dict(folder, rows, tmp_path / name, **more)
        content["model"] |= {"quantization": kind, "dtype": "bfloat16"}
        seen, result = losses(tmp_path, content)
        found[name] = seen, result.summary["adapter_sha256"]
        notes = [event["text"] for event in read_events(result.run / "events.jsonl") if event["event"] == "notice"]
        assert any("kept dequantised" in text for text in notes) == (name == "kept")
    assert found["kept"] == found["plain"] == found["often"] == found["seldom"]


def test_a_killed_run_on_a_quantised_base_goes_on_to_the_same_bits(tmp_path):
    folder, rows = tiny_folder("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    content = recipe_dict(folder, rows, tmp_path / "whole", model__quantization="nf4", train__max_steps=12)
    whole, result = losses(tmp_path, content)
    content["output"] = {"dir": str(tmp_path / "killed")}
    outcome = train_through_kills(write_recipe(tmp_path / "killed.yaml", content), tmp_path / "killed", kills=2, seed=1)
    assert outcome.kills
    assert outcome.summary["adapter_sha256"] == result.summary["adapter_sha256"]
    assert [loss for _, loss, _ in outcome.steps] == whole


@pytest.mark.parametrize("kind", ["none", *KINDS])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_layers_that_stream_in_compute_the_same_bits(architecture, kind, tmp_path):
    config = ModelConfig(name_or_path=str(tiny_folder(architecture, tmp_path)), dtype="float32", quantization=kind)
    whole, streamed = load_base(config, device=CPU), load_base(config, device=CPU)
    size = sum(p.numel() * p.element_size() for p in streamed.model.parameters())
    count = place(streamed.model, CPU, room=size)
    frozen = [module for module in streamed.model.modules() if isinstance(module, FrozenLinear) and module.is_streamed]
    assert 0 < count == len(frozen)
    assert place(load_base(config, device=CPU).model, CPU, room=2 * size) == 0
    found = []
    for base in (whole, streamed):
        adapted = attach(base.model, LoraSection(r=4, init_lora_weights="gaussian"), facts=base.facts, seed=0)
        engine = build_engine(adapted.model, device=CPU, rows=0)
        assert disagreement(engine, adapted.model, takes_positions=base.facts.takes_positions) is None
        ids = torch.arange(3, 20)[None]
        logits = adapted.model(input_ids=ids).logits
        gradients = torch.autograd.grad(
            logits.square().sum(), [p for p in adapted.model.parameters() if p.requires_grad]
        )
        found.append([logits.detach(), *gradients])
    exact = torch.equal if architecture == "llama" else lambda a, b: torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert all(exact(a, b) for a, b in zip(*found, strict=True))


class Doubling(nn.Linear):
    """Looks like a linear and is none."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_layer_that_only_looks_like_a_linear_does_not_stream(tmp_path):
    model = load_base(ModelConfig(name_or_path=str(tiny_folder("llama", tmp_path)), dtype="float32"), device=CPU).model
    old = model.model.layers[1].mlp.down_proj
    new = Doubling(old.in_features, old.out_features, bias=False)
    new.weight = old.weight
    model.model.layers[1].mlp.down_proj = new
    ids = torch.arange(3, 20)[None]
    before = model(ids).logits
    assert place(model, CPU, room=sum(p.numel() * p.element_size() for p in model.parameters())) > 0
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dead_row_of_the_base_does_not_spoil_the_training(tmp_path, dtype):
    folder, rows = tiny_folder("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3] *= 1e-38
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    content = recipe_dict(folder, rows, tmp_path / "run", model__quantization="int8", train__engine="fast")
    content["model"]["dtype"] = dtype
    assert len(losses(tmp_path, content)[0]) == 6


def test_as_many_layers_are_kept_whole_as_there_is_room_for(tmp_path):
    config = ModelConfig(name_or_path=str(tiny_folder("llama", tmp_path)), dtype="bfloat16", quantization="nf4")
    model = load_base(config, device=CPU).model
    frozen = [module for module in model.modules() if isinstance(module, FrozenLinear)]
    sizes = [2 * module.in_features * module.out_features for module in frozen]
    assert keep_whole(model, room=sum(sizes[:3])) == (3, len(frozen))
    assert [module.kept is not None for module in frozen] == [True] * 3 + [False] * (len(frozen) - 3)


def test_dora_trains_on_a_quantised_base(tmp_path):
    folder, rows = tiny_folder("llama", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    content = recipe_dict(folder, rows, tmp_path / "run", model__quantization="nf4", lora__use_dora=True)
    seen, _ = losses(tmp_path, content)
    assert seen[-1] < seen[0]
    assert json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())["use_dora"]


def test_dropout_does_not_keep_the_engine_from_an_encoder_decoder(tmp_path):
    """The base's own dropout slept while the engine was proven: it had been woken by finding the sides."""
    folder, rows = tiny_folder("t5", tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    content = recipe_dict(folder, rows, tmp_path / "run", lora__lora_dropout=0.1, train__engine="fast")
    seen, _ = losses(tmp_path, content)
    assert len(seen) == 6
