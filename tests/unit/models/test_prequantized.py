"""Bases that come quantised: trained on the weights that the library makes of them, or refused with what to take."""

import json
from pathlib import Path

import pytest
import torch
from peft.utils import CONFIG_NAME
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig, PreTrainedModel

from fledge import evaluate, export, train
from fledge.errors import ModelError
from fledge.events import Event, Notice
from fledge.models.load import load_base
from tests.fp8 import BLOCK, SETTINGS, in_fp8
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import VOCABULARY, _tokenizer

_COMMON = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_COMMON |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.1}
NIBBLES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def written(model: PreTrainedModel, folder: Path, *, tensors: dict[str, torch.Tensor], settings: dict) -> Path:
    """The model's folder with other tensors in its file and a quantisation in its configuration."""
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return folder


def fp8_base(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A Llama in FP8 by blocks as DeepSeek publishes them, and what its weights stand for."""
    torch.manual_seed(0)
    config = LlamaConfig(**_COMMON, hidden_size=BLOCK, intermediate_size=2 * BLOCK)
    model = AutoModelForCausalLM.from_config(config)
    tensors, whole = {}, {}
    for name, weight in model.state_dict().items():
        if not name.endswith("proj.weight"):
            tensors[name] = weight.contiguous()
            continue
        codes, scale, whole[name] = in_fp8(weight)
        tensors |= {name: codes, f"{name}_scale_inv": scale}
    return written(model, folder, tensors=tensors, settings=SETTINGS), whole


def mxfp4_base(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A GPT-OSS whose experts are in MXFP4, and what their weights stand for."""
    torch.manual_seed(0)
    config = GptOssConfig(**_COMMON, hidden_size=64, intermediate_size=64, head_dim=16, num_local_experts=4)
    model = AutoModelForCausalLM.from_config(config)
    generator, lut = torch.Generator().manual_seed(1), torch.tensor([*NIBBLES, *(-value for value in NIBBLES)])
    tensors, whole = {}, {}
    for name, weight in model.state_dict().items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = weight.contiguous()
            continue
        experts, into, out = weight.shape
        codes = torch.randint(0, 16, (experts, out, into // 32, 32), generator=generator)
        scales = torch.randint(120, 124, (experts, out, into // 32), generator=generator)
        packed = codes[..., ::2] | (codes[..., 1::2] << 4)
        tensors |= {f"{name}_blocks": packed.to(torch.uint8), f"{name}_scales": scales.to(torch.uint8)}
        values = lut[codes] * torch.exp2(scales.float() - 127)[..., None]
        whole[name] = values.view(experts, out, into).transpose(1, 2)
    settings = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head", "model.embed_tokens"]}
    return written(model, folder, tensors=tensors, settings=settings), whole


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
    base = tmp_path / "base"
    model = AutoModelForCausalLM.from_config(LlamaConfig(**_COMMON, hidden_size=32, intermediate_size=32))
    written(model, base, tensors={n: t.contiguous() for n, t in model.state_dict().items()}, settings=settings)
    if card is not None:
        (base / "README.md").write_text(card, encoding="utf-8")
    recipe = load(tmp_path, recipe_dict(base, write_rows(tmp_path / "rows.jsonl"), tmp_path / "run"))
    with pytest.raises(ModelError) as told:
        train(recipe)
    assert f"quantised by {method}" in str(told.value) and cure in str(told.value)
