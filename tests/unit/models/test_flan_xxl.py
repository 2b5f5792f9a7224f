"""FLAN-T5-XXL's shape on the meta device: what the recipe trains of it, to the parameter."""

from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, T5Config

from fledge.adapters.attach import attach
from fledge.config.load import load_recipe
from fledge.models.facts import read_facts

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "flan-t5-xxl-samsum.yaml"


def test_the_recipe_trains_as_many_parameters_as_the_well_known_one():
    shape = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    config = T5Config(**shape, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.bfloat16)
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        facts = read_facts(model.requires_grad_(False))
        lora = load_recipe(RECIPE, ["lora.lora_dropout=0"]).lora
        adapted = attach(model, lora, facts=facts, seed=0)
    trained = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
    assert trained == 18_874_368
    assert facts.num_parameters == 11_135_332_352
    assert f"{trained / facts.num_parameters:.2%}" == "0.17%"
