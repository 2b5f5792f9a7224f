"""all-linear takes linears: routers, and what peft cannot adapt in this kind of model, are left out, and said."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fledge.adapters.attach import attach
from fledge.adapters.targets import ALL_LINEAR, check_targets
from fledge.config.lora import LoraSection
from fledge.models.facts import read_facts
from tests.tiny_models import ARCHITECTURES, tiny_folder

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MIXED = SMALL | {"intermediate_size": 32, "num_key_value_heads": 2, "num_local_experts": 2, "head_dim": 8}
KINDS = {
    "llama4_text": (MIXED | {"intermediate_size_mlp": 32, "pad_token_id": 0}, {"router"}),
    "phimoe": (MIXED | {"num_experts_per_tok": 2}, {"router"}),
    "mamba": (SMALL | {"state_size": 4, "intermediate_size": 64}, {"out_proj"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_adapter_would_break_is_left_out_and_the_rest_computes(kind):
    settings, left_out = KINDS[kind]
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        before = base(input_ids=ids, use_cache=False).logits
    found = attach(base, LoraSection(r=4), facts=read_facts(base), seed=0)
    assert set(found.left_out) == left_out
    with torch.no_grad():
        assert torch.equal(found.model(input_ids=ids, use_cache=False).logits, before)
    names = {name.split(".")[-4] for name, p in found.model.named_parameters() if p.requires_grad}
    assert names and not names & left_out


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_models_leave_nothing_out_a_class_of_their_own_for_linears_or_not(name, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(tiny_folder(name, tmp_path / name))
    found = check_targets(base, ALL_LINEAR, facts=read_facts(base))
    assert (found.names, found.left_out) == (ALL_LINEAR, ())
