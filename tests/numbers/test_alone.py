"""Before a training: what is wrong with computing rows together is found, and nothing is found where nothing is."""

import functools
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from fledge.adapters.attach import attach
from fledge.commands.layout import choose_layout
from fledge.commands.library_loss import plain_loss
from fledge.commands.train import train
from fledge.config.lora import LoraSection
from fledge.errors import ModelError
from fledge.events import Notice
from fledge.models.blocks import blocks
from fledge.models.facts import read_facts
from fledge.models.one_of_each import kinds_of_blocks, one_of_each
from tests.numbers.alone_models import (
    SMALL,
    found_by_engine,
    found_in,
    named,
    of_kind,
    packed_by_library,
    recipe,
    trials_of,
)
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import ARCHITECTURES, PAIRS, tiny_folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_is_found_in_the_library_packed_or_in_the_engine(name, dtype, tmp_path):
    model = named(name, tmp_path, dtype)
    facts, _ = trials_of(model)
    assert found_in(model, functools.partial(packed_by_library, model, facts)) == ""
    assert found_in(model, functools.partial(plain_loss(facts, None).logits, model), is_packed=False) == ""
    assert found_by_engine(model) == ""


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_is_found_in_padded_pairs(name, tmp_path):
    model = named(name, tmp_path)
    assert choose_layout(recipe(), model, facts=trials_of(model)[0], trials=trials_of(model)[1]).layout == "padded"


FALLING_BACK = {
    "gpt_neo": (
        {
            "num_layers": 2,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 6,
        },
        "padded",
    ),
    "rwkv": ({"attention_hidden_size": 32, "context_length": 256}, "padded"),
    "llama4_text": (
        {"attention_chunk_size": 8, "num_local_experts": 2, "intermediate_size_mlp": 48, "head_dim": 8},
        "packed",
    ),
    "phi3": (
        {
            "pad_token_id": 2,
            "max_position_embeddings": 256,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 4.0, 8.0, 16.0],
                "original_max_position_embeddings": 16,
            },
        },
        "packed",
    ),
    "llama": (
        {"max_position_embeddings": 16, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
        "packed",
    ),
}


@pytest.mark.parametrize("kind", FALLING_BACK)
def test_each_kind_gets_the_fastest_layout_in_which_its_rows_are_as_if_alone(kind):
    settings, layout = FALLING_BACK[kind]
    model = of_kind(kind, **settings)
    facts, trials = trials_of(model)
    chosen = choose_layout(recipe(), model, facts=facts, trials=trials)
    assert (chosen.layout, bool(chosen.notice)) == (layout, layout != "packed")


def test_without_its_own_rows_angles_a_dynamic_base_would_be_refused(monkeypatch):
    monkeypatch.setattr("tests.numbers.alone_models.angles_by_row", lambda model: None)
    model = of_kind("llama", **FALLING_BACK["llama"][0])
    facts, trials = trials_of(model)
    with pytest.raises(ModelError, match="depends on the rows before it"):
        choose_layout(recipe(), model, facts=facts, trials=trials)


def test_a_recipe_that_rules_out_what_is_left_is_told_which_key():
    model = of_kind("gpt_neo", **FALLING_BACK["gpt_neo"][0])
    facts, trials = trials_of(model)
    with pytest.raises(ModelError, match=r"data\.packing"):
        choose_layout(recipe(packing=True), model, facts=facts, trials=trials)
    assert choose_layout(recipe(packing=False), model, facts=facts, trials=trials).layout == "padded"
    assert choose_layout(recipe(rows=1), model, facts=facts, trials=trials).layout == "single"


def test_the_reason_is_why_the_layout_before_it_fails(monkeypatch):
    said = {"packed": "no attention of its own", "padded": "rows differ", "single": None}
    monkeypatch.setattr("fledge.commands.layout._wrong", lambda layout, *_, **__: said[layout])
    model = of_kind("llama")
    facts, trials = trials_of(model)
    chosen = choose_layout(recipe(), model, facts=facts, trials=trials)
    assert chosen.notice == "each row is computed alone: rows differ"


def test_padding_is_told_whoever_chose_the_librarys_modules(tmp_path):
    base = tiny_folder("llama", tmp_path / "base")  # for its tokenizer
    config = AutoConfig.for_model("gpt_neo", **SMALL | FALLING_BACK["gpt_neo"][0])
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    rows = write_rows(tmp_path / "rows.jsonl")
    for engine in ("auto", "plain"):
        content = recipe_dict(base, rows, tmp_path / engine, train__engine=engine, train__max_steps=1)
        told: list[Any] = []
        train(load(tmp_path / f"of-{engine}", content), observers=[told.append])
        texts = [each.text for each in told if isinstance(each, Notice)]
        assert any(text.startswith("rows are padded, not packed: ") for text in texts), engine


def test_blocks_of_one_kind_hand_on_and_the_model_is_as_before_afterwards(tmp_path):
    model = of_kind("mistral", num_hidden_layers=4, sliding_window=6)
    base = model.get_base_model()
    assert kinds_of_blocks(base) == [0, 0, 0, 0]
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        with one_of_each(base, [0, 0, 0, 0]):
            few = model(input_ids=ids, use_cache=False).logits
        assert torch.equal(model(input_ids=ids, use_cache=False).logits, whole)
    assert not torch.allclose(few, whole)
    assert all("forward" not in vars(block) for block in blocks(base))


def test_dropout_that_knows_its_place_by_name_makes_no_block_a_kind_of_its_own():
    base = of_kind("llama", num_hidden_layers=12).unload()
    adapted = attach(base, LoraSection(r=2, lora_dropout=0.1), facts=read_facts(base), seed=1).model
    assert kinds_of_blocks(adapted.get_base_model()) == [0] * 12


@pytest.mark.parametrize(("kind", "kinds"), [("t5", [0, 1, 1, 3, 4, 4]), ("bart", [0, 0, 0, 3, 3, 3])])
def test_a_decoders_blocks_count_from_their_own_first_one(kind, kinds):
    """T5's first block on each side has the table of distances; a decoder's blocks keep their number, for its cache."""
    layers = {"t5": {"num_layers": 3}, "bart": {"encoder_layers": 3, "decoder_layers": 3}}[kind]
    config = AutoConfig.for_model(kind, vocab_size=64, d_model=16, num_heads=2, d_kv=8, d_ff=24, **layers)
    assert kinds_of_blocks(AutoModelForSeq2SeqLM.from_config(config)) == kinds


def test_windows_and_full_attention_are_two_kinds():
    model = of_kind("gemma2", num_hidden_layers=4, head_dim=8, sliding_window=6)
    assert kinds_of_blocks(model.get_base_model()) == [0, 1, 0, 1]
