"""Bases that come quantised: trained on the weights that the library makes of them, or refused with what to take."""

import json
from pathlib import Path

import pytest
import torch
from peft.utils import CONFIG_NAME
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bench.families_quantized import write_fp8, write_mxfp4
from fledge import evaluate, export, train
from fledge.errors import ModelError
from fledge.events import Event, Notice
from fledge.models.load import load_base
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import _tokenizer, tiny_folder


def fp8_base(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A Llama in FP8 by blocks, and what its weights stand for."""
    whole = write_fp8(folder)
    _tokenizer().save_pretrained(folder)
    return folder, whole


def mxfp4_base(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A GPT-OSS whose experts are in MXFP4, and what their weights stand for."""
    whole = write_mxfp4(folder)
    _tokenizer().save_pretrained(folder)
    return folder, whole


def added(adapter: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight: B A, scaled."""
    tensors, config = load_file(adapter / "adapter_model.safetensors"), json.loads((adapter / CONFIG_NAME).read_text())
    names = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    scale = config["lora_alpha"] / config["r"]
    products = {n: scale * tensors[f"{n}.lora_B.weight"] @ tensors[f"{n}.lora_A.weight"] for n in names}
    return {f"{name.removeprefix('base_model.model.')}.weight": product for name, product in products.items()}


@pytest.mark.parametrize("make", [fp8_base, mxfp4_base])
def test_it_trains_on_the_weights_that_its_files_stand_for_and_its_merge_has_them(make, tmp_path):
    base, whole = make(tmp_path / "base")
    told: list[Event] = []
    rows = write_rows(tmp_path / "rows.jsonl")
    content = recipe_dict(base, rows, tmp_path / "run", train__max_steps=3, data__validation={"fraction": 0.2})
    recipe = load(tmp_path, content)
    result = train(recipe, observers=[told.append])
    assert any("weights are made whole in float32" in each.text for each in told if isinstance(each, Notice))
    assert result.summary["last_loss"] < result.summary["first_loss"]
    assert evaluate(result.run).tuned.loss == pytest.approx(result.summary["validation_loss"], rel=1e-6)
    loaded = load_base(recipe.model, device=torch.device("cpu")).model.state_dict()
    assert len(whole) >= 4
    assert all(torch.equal(loaded[name], values) for name, values in whole.items())
    export(result.run, tmp_path / "merged", to="hf")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert "quantization_config" not in config
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    parts = added(result.run / "adapter")
    for name, values in whole.items():
        torch.testing.assert_close(merged[name], values + parts.get(name, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "of tomorrow"}, "of tomorrow"),
        ({}, "a method that it does not name"),
    ],
)
@pytest.mark.parametrize(
    ("card", "cure"),
    [
        ("---\nbase_model: maker/model\n---\n", "model.name_or_path: maker/model"),
        ("---\nbase_model: [maker/model, other]\n---\n", "model.name_or_path: maker/model"),
        ("---\nbase_model: {a: 1\n---\n", "give the base that it was made of"),
        ("no header", "give the base that it was made of"),
        (None, "give the base that it was made of"),
    ],
)
def test_a_method_whose_weights_are_not_made_whole_is_refused_with_what_to_take(settings, method, card, cure, tmp_path):
    base = tiny_folder("llama", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    if card is not None:
        (base / "README.md").write_text(card, encoding="utf-8")
    recipe = load(tmp_path, recipe_dict(base, write_rows(tmp_path / "rows.jsonl"), tmp_path / "run"))
    with pytest.raises(ModelError) as told:
        train(recipe)
    assert f"quantised by {method}" in str(told.value) and cure in str(told.value)
