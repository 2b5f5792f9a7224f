"""The automatic class is asked of transformers, and what is not understood is refused in words."""

import pytest
from transformers import CONFIG_MAPPING, AutoConfig

from bench.families_bases import with_images
from bench.families_flags import IMAGE_TEXT
from fledge.errors import ModelError
from fledge.models.kinds import auto_class, model_class


def name_of(config) -> str:
    return auto_class(config, where="base").__name__


@pytest.mark.parametrize("family", IMAGE_TEXT)
def test_a_base_for_text_and_images_is_loaded_as_such(family):
    config = with_images(family)
    assert name_of(config) == "AutoModelForImageTextToText"
    assert model_class(config, where="base").__name__.endswith("ForConditionalGeneration")


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama", "AutoModelForCausalLM"),
        ("gemma3_text", "AutoModelForCausalLM"),
        ("llama4_text", "AutoModelForCausalLM"),
        ("mpt", "AutoModelForCausalLM"),
        ("t5", "AutoModelForSeq2SeqLM"),
        ("bart", "AutoModelForSeq2SeqLM"),
    ],
)
def test_a_base_of_text_is_loaded_as_before(family, name):
    assert name_of(AutoConfig.for_model(family)) == name


def test_a_text_model_that_was_taken_out_of_a_base_for_both_says_so_in_its_architectures():
    config = with_images("llama4")
    config.architectures = ["Llama4ForCausalLM"]
    assert name_of(config) == "AutoModelForCausalLM"
    config.architectures = ["Llama4ForConditionalGeneration"]
    assert name_of(config) == "AutoModelForImageTextToText"


@pytest.mark.parametrize(
    ("family", "what"),
    [
        ("gemma3n", "reads sound too"),
        ("qwen2_audio", "reads sound too"),
        ("idefics2", "parts beside text and images (perceiver_config)"),
        ("whisper", "no language model of the kind whisper"),
        ("vit", "no language model of the kind vit"),
        ("siglip", "no language model of the kind siglip"),
    ],
)
def test_other_kinds_are_refused_in_words(family, what):
    with pytest.raises(ModelError) as caught:
        auto_class(CONFIG_MAPPING[family](), where="base")
    assert what in str(caught.value)
    assert all(problem.cure for problem in caught.value.problems)
