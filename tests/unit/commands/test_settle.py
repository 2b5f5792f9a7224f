"""What `auto` becomes, and that memory has a say in it."""

import pytest
import torch

from fledge.commands import settle as module
from fledge.commands.settle import settle
from fledge.config.recipe import Recipe
from fledge.facts import ModelFacts
from fledge.ops import choice

CPU = torch.device("cpu")


def facts(**changes) -> ModelFacts:
    known = {
        "architecture": "Some",
        "num_layers": 24,
        "hidden_size": 2048,
        "vocab_size": 32000,
        "num_parameters": 1_000_000_000,
        "parameter_bytes": 2_000_000_000,
        "value_bytes": 2,
        "is_head_tied": True,
        "max_positions": None,
        "linear_names": (),
        "has_attention_interface": True,
        "supports_sdpa": True,
        "is_encoder_decoder": False,
        "takes_positions": True,
    }
    return ModelFacts(**(known | changes))


def settled(monkeypatch, *, available: float, known: ModelFacts, fast_tokens: int | None = None, lora=None, **train):
    monkeypatch.setattr(module, "available_bytes", lambda device: int(available))
    content = {"model": {"name_or_path": "x"}, "data": {"train": {"path": "a", "format": "text"}}, "train": train}
    recipe = Recipe.model_validate(content | ({"lora": lora} if lora else {}))
    return settle(recipe, known, attention="sdpa", device=CPU, fast_tokens=fast_tokens)


def test_plenty_of_memory_takes_the_full_micro_batch_and_no_recomputation(monkeypatch):
    recipe = settled(monkeypatch, available=200e9, known=facts())
    assert recipe.train.micro_batch_tokens == module.CPU_TOKENS
    assert recipe.train.gradient_checkpointing is False
    assert (recipe.model.attention, recipe.model.placement) == ("sdpa", "cpu")


def test_a_large_vocabulary_makes_micro_batches_smaller_but_never_shorter_than_a_row(monkeypatch):
    bloom = facts(vocab_size=250_880)
    assert settled(monkeypatch, available=15e9, known=bloom).train.micro_batch_tokens == 1245
    assert settled(monkeypatch, available=1e9, known=bloom).train.micro_batch_tokens == 512


def test_little_memory_recomputes(monkeypatch):
    assert settled(monkeypatch, available=8e9, known=facts()).train.gradient_checkpointing is True


@pytest.mark.parametrize("given", [{"micro_batch_tokens": 100}, {"micro_batch_rows": 3}])
def test_what_the_recipe_says_stands(monkeypatch, given):
    recipe = settled(monkeypatch, available=1e9, known=facts(), gradient_checkpointing=False, **given)
    assert recipe.train.gradient_checkpointing is False
    assert {name: getattr(recipe.train, name) for name in given} == given


def test_the_fast_engine_has_its_own_micro_batch_and_leaves_what_changes_no_bit(monkeypatch):
    recipe = settled(monkeypatch, available=1e9, known=facts(vocab_size=250_880), fast_tokens=640)
    assert (recipe.train.engine, recipe.train.share_prefixes) == ("fast", True)
    assert recipe.train.micro_batch_tokens == 640
    assert (recipe.model.attention, recipe.train.gradient_checkpointing) == ("auto", "auto")


def test_kernels_that_failed_are_left_out_from_then_on(monkeypatch):
    monkeypatch.setattr(choice, "_REFUSED", {})
    assert settled(monkeypatch, available=1e9, known=facts(), fast_tokens=640).train.kernels == "auto"
    choice.refuse(CPU, "they do not fit")
    assert settled(monkeypatch, available=1e9, known=facts(), fast_tokens=640).train.kernels == "torch"


def test_beginnings_are_shared_by_the_fast_engine_without_dropout_only(monkeypatch):
    def shares(**given) -> bool:
        return settled(monkeypatch, available=1e9, known=facts(), **given).train.share_prefixes

    assert shares(fast_tokens=640)
    assert not shares(fast_tokens=640, lora={"lora_dropout": 0.1})
    assert not shares(fast_tokens=640, share_prefixes=False)
    assert not shares(fast_tokens=None)
