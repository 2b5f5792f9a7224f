"""What is trained whole, and what is refused before hours are spent on it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2MoeConfig

from fledge.adapters.attach import attach
from fledge.config.lora import LoraSection
from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.load import Base, load_base
from tests.tiny_models import ARCHITECTURES, tiny_folder

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8]])


def base_of(architecture: str, folder, *, dtype: str = "float32", tie: bool | None = None) -> Base:
    path = str(tiny_folder(architecture, folder, tie=tie))
    return load_base(ModelConfig(name_or_path=path, dtype=dtype), device=CPU)


def name_of(model, module) -> str:
    return next(name.rsplit(".", 1)[-1] for name, each in model.named_modules() if each is module)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ["llama", "phi", "gpt-neox", "mistral"])
def test_modules_trained_whole_take_and_give_the_bases_format_and_learn_in_float32(architecture, dtype, tmp_path):
    base = base_of(architecture, tmp_path, dtype=dtype)
    ends = (base.model.get_output_embeddings(), base.model.get_input_embeddings())
    saved = tuple(name_of(base.model, end) for end in ends)
    model = attach(base.model, LoraSection(modules_to_save=saved), facts=base.facts, seed=1).model
    logits = model(IDS).logits
    logits.float().logsumexp(-1).sum().backward()
    assert str(logits.dtype) == f"torch.{dtype}"
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trained)


@pytest.mark.parametrize("change", [{"target_modules": ("lm_head", "q_proj")}, {"modules_to_save": ("embed_tokens",)}])
def test_one_end_of_a_tied_base_is_refused_before_training(change, tmp_path):
    base = base_of("llama", tmp_path, tie=True)
    with pytest.raises(ModelError, match="share one weight"):
        attach(base.model, LoraSection(**change), facts=base.facts, seed=1)


def test_pissa_is_refused_where_rounding_would_hide_the_changed_base(tmp_path):
    base = base_of("llama", tmp_path, dtype="bfloat16")
    with pytest.raises(ModelError, match="pissa"):
        attach(base.model, LoraSection(init_lora_weights="pissa"), facts=base.facts, seed=1)


def test_pissa_on_an_embedding_is_refused(tmp_path):
    base = base_of("llama", tmp_path, tie=False)
    lora = LoraSection(init_lora_weights="pissa", target_modules=("q_proj", "embed_tokens"))
    with pytest.raises(ModelError, match="embedding"):
        attach(base.model, lora, facts=base.facts, seed=1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_base_that_lacks_a_tensor_is_refused(architecture, tmp_path):
    folder = tiny_folder(architecture, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.1" in name or "h.1" in name)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors"):
        load_base(ModelConfig(name_or_path=str(folder), dtype="float32"), device=CPU)


def test_a_config_of_a_wrong_type_is_an_error_in_words(tmp_path):
    folder = tiny_folder("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(ModelConfig(name_or_path=str(folder)), device=CPU)


def test_dropout_inside_a_mixture_of_experts_is_keyed_or_refused_in_words(tmp_path):
    config = Qwen2MoeConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    base = load_base(ModelConfig(name_or_path=str(tmp_path), dtype="float32"), device=CPU)
    adapted = attach(base.model, LoraSection(lora_dropout=0.5), facts=base.facts, seed=1)
    adapted.model.train()
    keys = adapted.dropout
    keys.rows, keys.lengths, keys.is_packed = (3,), (4,), False
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
        first, second = adapted.model(IDS).logits, adapted.model(IDS).logits
    assert torch.equal(first, second)
