"""The language model within a base for text and images, and bases of that kind that rows of text cannot train."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from bench.families_bases import with_images
from bench.families_flags import IMAGE_TEXT
from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.blocks import blocks
from fledge.models.language import check_reads_text, image_parts, set_aside
from fledge.models.load import load_base
from fledge.models.quantize import linear_names
from tests.journeys.image_text import KINDS, published

TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 2,
    "initializer_range": 0.15,
}
SIGHT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
CROSS = TEXT | {"num_hidden_layers": 3, "cross_attention_layers": [1], "rope_parameters": {"rope_type": "default"}}
CROSS["rope_parameters"]["rope_theta"] = 10000.0
OTHERS = {
    "mllama": (
        CROSS,
        SIGHT
        | {"attention_heads": 4, "num_global_layers": 1, "vision_output_dim": 64, "intermediate_layers_indices": [0]},
        "wait for an image",
    ),
    "paligemma": (TEXT | {"model_type": "gemma", "head_dim": 8}, SIGHT | {"num_attention_heads": 4}, "next token"),
    "blip": (TEXT, SIGHT | {"num_attention_heads": 4}, "does not read rows of text alone"),
}
"""Text, images, and what is said of the base."""


def drawn(config) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", OTHERS)
def test_what_rows_of_text_cannot_train_is_refused_in_words(kind, tmp_path):
    text, sight, what = OTHERS[kind]
    drawn(AutoConfig.for_model(kind, text_config=text, vision_config=sight)).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_base(ModelConfig(name_or_path=str(tmp_path), dtype="float32"), device=torch.device("cpu"))
    assert what in str(caught.value) and "give the text model of the same family" in str(caught.value)


@pytest.mark.parametrize("family", IMAGE_TEXT)
def test_blocks_and_what_is_quantised_are_the_language_models_even_where_there_are_more_for_images(family):
    config = with_images(family)
    for name in ("num_hidden_layers", "depth"):
        if hasattr(config.vision_config, name):
            setattr(config.vision_config, name, 9)
    with torch.device("meta"):
        model = drawn(config)
    text = config.get_text_config()
    assert len(blocks(model)) == text.num_hidden_layers < 9
    names = linear_names(model)
    assert names and all("language_model" in name for name in names)


@pytest.mark.parametrize("family", IMAGE_TEXT)
def test_what_is_set_aside_is_all_but_the_language_model_and_its_head(family):
    model = drawn(with_images(family))
    before = {name: p.numel() for name, p in model.named_parameters()}
    parts = set_aside(model)
    assert parts == image_parts(model)
    for name, parameter in model.named_parameters():
        is_text = "language_model" in name or name.startswith("lm_head")
        assert parameter.numel() == (before[name] if is_text else 0), name
    assert any(p.numel() == 0 for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_that_was_set_aside_holds_less_and_computes_the_same(kind, tmp_path):
    config = ModelConfig(name_or_path=str(published(kind, tmp_path)), dtype="float32")
    whole, held = (load_base(config, device=torch.device("cpu"), is_whole=each) for each in (True, False))
    assert held.facts.parameter_bytes < whole.facts.parameter_bytes
    assert held.facts.image_parts == whole.facts.image_parts != ()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(held.model(input_ids=ids).logits, whole.model(input_ids=ids).logits)


def test_plain_models_have_no_part_for_images(tmp_path):
    model = drawn(with_images("gemma3")).model.language_model
    assert image_parts(model) == ()


def test_transformers_class_for_llama_4_computes_nothing_by_itself_until_this_fails():
    """Then MENDS and NOTES of models/exceptions.py can go, and the same in exporting/outsider.py and in bench."""
    model = drawn(with_images("llama4"))
    with pytest.raises(AttributeError, match="image_outputs"):
        model(input_ids=torch.arange(3, 20)[None])
    with pytest.raises(ModelError, match="does not read rows of text alone"):
        check_reads_text(model, where="base")
