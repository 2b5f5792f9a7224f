"""Targets that are written for a base with a part for images."""

import re

import pytest
from peft import LoraConfig
from torch import nn

from fledge.adapters.images import check_held, in_few_words, lies_in, without_images
from fledge.errors import ModelError


def linear() -> nn.Linear:
    return nn.Linear(2, 2)


def model() -> nn.Module:
    layer = nn.ModuleDict({"q_proj": linear(), "up": linear()})
    language = nn.ModuleDict({"layers": nn.ModuleList([layer, nn.ModuleDict({"q_proj": linear()})])})
    sight = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"q_proj": linear(), "fc": linear()})])})
    return nn.ModuleDict({"tower": sight, "tower_of_text": language, "head": linear()})


PARTS = ("tower",)
TEXT = {"tower_of_text.layers.0.q_proj", "tower_of_text.layers.1.q_proj"}


def taken(pattern: str) -> set[str]:
    return {name for name, _ in model().named_modules() if re.fullmatch(pattern, name)}


def test_a_part_is_known_by_whole_names():
    assert lies_in("tower", PARTS) and lies_in("tower.layers.0", PARTS)
    assert not lies_in("tower_of_text.layers", PARTS)


def test_ends_of_names_that_lie_in_the_part_too_become_a_pattern():
    assert without_images(model(), ["up"], parts=PARTS) == ["up"]
    assert taken(without_images(model(), ["q_proj", "head"], parts=PARTS)) == TEXT | {"head"}


def test_a_pattern_keeps_what_it_says_of_the_rest():
    assert without_images(model(), r".*text.*q_proj", parts=PARTS) == r".*text.*q_proj"
    assert taken(without_images(model(), r".*q_proj|.*fc", parts=PARTS)) == TEXT
    assert without_images(model(), r"(?i).*Q_PROJ", parts=PARTS) == sorted(TEXT)


def test_all_of_them_are_said_in_few_words_or_by_name():
    chosen = sorted(TEXT | {"tower_of_text.layers.0.up"})
    assert taken(in_few_words(model(), chosen, parts=PARTS)) == set(chosen)
    assert in_few_words(model(), chosen[:1], parts=PARTS) == chosen[:1]


@pytest.mark.parametrize("needs", [{"use_dora": True}, {"modules_to_save": ["tower"]}])
def test_an_adapter_that_needs_the_weights_of_the_part_is_refused(needs, tmp_path):
    base, config = model(), LoraConfig(target_modules=["q_proj"], **needs)
    check_held(base, config, folder=tmp_path)
    base.tower.layers[0].q_proj.weight.data = base.head.weight.data[:0]
    check_held(base, LoraConfig(target_modules=["q_proj"]), folder=tmp_path)
    with pytest.raises(ModelError, match="which reads images"):
        check_held(base, config, folder=tmp_path)
