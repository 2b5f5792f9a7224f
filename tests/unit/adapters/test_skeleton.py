"""An adapter that plain peft could not load is found before it is trained, and none that it loads is taken for one."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from fledge.adapters.attach import attach
from fledge.adapters.save import save_adapter
from fledge.adapters.skeleton import check_saved_taken, check_taken
from fledge.config.lora import LoraSection
from fledge.errors import ModelError
from fledge.models.facts import read_facts
from tests.tiny_models import ARCHITECTURES, PAIRS, tiny_folder

WEIGHTS = "adapter_model.safetensors"


def base_of(name, tmp_path):
    kind = AutoModelForSeq2SeqLM if name in PAIRS else AutoModelForCausalLM
    return kind.from_pretrained(tiny_folder(name, tmp_path / name))


def adapted(base, **settings) -> PeftModel:
    return get_peft_model(base, LoraConfig(**{"r": 4, "target_modules": "all-linear"} | settings))


@pytest.mark.parametrize("name", [*ARCHITECTURES, *PAIRS])
def test_adapters_that_peft_loads_are_taken(name, tmp_path):
    model = adapted(base_of(name, tmp_path))
    check_taken(model)
    model.save_pretrained(tmp_path / "adapter")
    check_saved_taken(model.get_base_model(), tmp_path / "adapter")


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"trainable_token_indices": {"embed_tokens": [3]}}],
)
def test_other_parts_of_an_adapter_have_their_place_too(settings, tmp_path):
    check_taken(adapted(base_of("llama", tmp_path), **settings))


@pytest.mark.parametrize("fault", ["lacks", "has no place for", "other sizes of"])
def test_a_tensor_missing_left_over_or_of_another_shape_is_told_by_name(fault, tmp_path):
    model, folder = adapted(base_of("llama", tmp_path)), tmp_path / "adapter"
    model.save_pretrained(folder)
    tensors = load_file(folder / WEIGHTS)
    name = sorted(tensors)[0]
    if fault == "lacks":
        del tensors[name]
    elif fault == "has no place for":
        tensors["base_model.model.extra.lora_A.weight"] = torch.zeros(4, 32)
    else:
        tensors[name] = torch.zeros(2, 2)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ModelError, match=fault):
        check_saved_taken(model.get_base_model(), folder)


def laguna():
    """Its library renames the tensors of shared experts as it loads them."""
    config = AutoConfig.for_model(
        "laguna",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_attention_heads_per_layer=[4, 4],
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        layer_types=["full_attention", "full_attention"],
        mlp_layer_types=["dense", "sparse"],
    )
    return AutoModelForCausalLM.from_config(config)


def test_what_the_library_renames_as_it_loads_is_found_before_the_training():
    """Laguna's shared experts: peft saves one name and looks for another. When this fails, they agree."""
    model = adapted(laguna())
    with pytest.raises(ModelError, match="plain peft could not load this adapter"):
        check_taken(model)


def test_all_linear_leaves_out_what_the_library_renames_and_plain_peft_loads_the_rest(tmp_path):
    torch.manual_seed(0)
    base = laguna()
    weights = copy.deepcopy(base.state_dict())
    found = attach(base, LoraSection(r=4), facts=read_facts(base), seed=0)
    assert set(found.lost) == {f"mlp.shared_experts.{name}_proj" for name in ("gate", "up", "down")}
    check_taken(found.model)
    trained = {name: p for name, p in found.model.named_parameters() if p.requires_grad}
    assert any(".layers.1.self_attn.q_proj." in name for name in trained)
    assert any(".layers.0.mlp.down_proj." in name for name in trained), "a dense layer has the same last name"
    for parameter in trained.values():
        parameter.data = torch.randn_like(parameter)
    save_adapter(found, tmp_path, base="laguna", revision="main")
    again = laguna()
    again.load_state_dict(weights)
    loaded = dict(PeftModel.from_pretrained(again, tmp_path).named_parameters())
    assert all(torch.equal(loaded[name], parameter) for name, parameter in trained.items())


def test_a_configuration_that_names_other_modules_is_found(tmp_path):
    model, folder = adapted(base_of("llama", tmp_path)), tmp_path / "adapter"
    model.save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": ["q_proj"]}))
    with pytest.raises(ModelError, match="has no place for"):
        check_saved_taken(model.get_base_model(), folder)
