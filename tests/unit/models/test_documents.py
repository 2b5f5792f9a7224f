"""Packed documents do not see each other: the fast path equals the library's own path, one document at a time."""

import inspect
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from fledge.errors import ModelError
from fledge.models.checkpointing import checkpointed_blocks
from fledge.models.documents import documents_apart
from tests.tiny_models import ARCHITECTURES, VOCABULARY, WINDOW, tiny_folder

LENGTHS = (11, 1, 17, 4)
WITHOUT_SDPA = {"bloom", "gemma2"}
CASES = [
    (name, kind)
    for name in ARCHITECTURES
    for kind in ("eager", "sdpa")
    if not (kind == "sdpa" and name in WITHOUT_SDPA)
]
ALIBI_TWICE = ("falcon-rw", "eager")
"""transformers 5.23 puts Falcon's ALiBi into the mask and into the scores in eager attention; sdpa has it once."""


def load(name: str, attention: str, folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    path = tiny_folder(name, folder / name)
    return AutoModelForCausalLM.from_pretrained(path, attn_implementation=attention, dtype=dtype).eval()


def reference(model: PreTrainedModel, case: tuple[str, str], folder: Path) -> PreTrainedModel:
    """The model whose own logits are right: `model` itself but for the one case where the library errs."""
    return load(case[0], "sdpa", folder, model.dtype) if case == ALIBI_TWICE else model


def documents(lengths: Sequence[int] = LENGTHS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(3, VOCABULARY, (1, length), generator=generator) for length in lengths]


def inputs(ids: torch.Tensor, lengths: Sequence[int], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    given = {"input_ids": ids, "use_cache": False}
    if "position_ids" in inspect.signature(model.forward).parameters:
        given["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None]
    return given


def one_by_one(model: PreTrainedModel, texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The library's own logits of each document alone, one after the other. [1, sum of lengths, V]"""
    return torch.cat([model(input_ids=text, use_cache=False).logits for text in texts], dim=1)


def packed(model: PreTrainedModel, texts: Sequence[torch.Tensor], lengths: Sequence[int]) -> torch.Tensor:
    with documents_apart(model) as apart:
        apart.lengths = tuple(lengths)
        return model(**inputs(torch.cat(list(texts), dim=1), lengths, model)).logits


def loss(logits: torch.Tensor, texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum of token losses, each document's last position predicting nothing."""
    labels = torch.cat([F.pad(text[0, 1:], (0, 1), value=-100) for text in texts])
    return F.cross_entropy(logits[0].float(), labels, reduction="sum")


def gradients(value: torch.Tensor, model: nn.Module) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


def test_the_cases_cover_every_architecture_with_eager_and_all_but_two_with_sdpa():
    assert len(ARCHITECTURES) == 11
    assert len(CASES) == 2 * 11 - 2
    assert max(LENGTHS) > 2 * WINDOW


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_packed_logits_losses_and_gradients_equal_those_of_documents_alone(name, attention, tmp_path):
    model, texts = load(name, attention, tmp_path), documents()
    plain = reference(model, (name, attention), tmp_path)
    alone = one_by_one(plain, texts)
    together = packed(model, texts, LENGTHS)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss(together, texts), loss(alone, texts), rtol=1e-6, atol=1e-5)
    expected, found = gradients(loss(alone, texts), plain), gradients(loss(together, texts), model)
    assert expected.keys() == found.keys() and len(found) > 10
    for key, gradient in expected.items():
        distance = (found[key] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-3)
        assert distance < 1e-4, (key, distance)


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_packing_in_bfloat16_is_as_near_to_float32_as_the_library_is(name, attention, tmp_path):
    texts = documents()
    with torch.no_grad():
        case = (name, attention)
        exact = one_by_one(reference(load(*case, tmp_path), case, tmp_path), texts)
        model = load(*case, tmp_path, torch.bfloat16)
        plain = (one_by_one(reference(model, case, tmp_path), texts).float() - exact).abs().mean()
        ours = (packed(model, texts, LENGTHS).float() - exact).abs().mean()
    assert 0 < ours < 1.25 * plain


@pytest.mark.parametrize(("name", "attention"), CASES)
@pytest.mark.parametrize("with_mask", [True, False])
def test_rows_padded_on_the_right_equal_documents_alone(name, attention, with_mask, tmp_path):
    model, texts = load(name, attention, tmp_path), documents()
    ids = torch.cat([F.pad(text, (0, max(LENGTHS) - text.shape[1]), value=2) for text in texts])
    given = {"input_ids": ids, "use_cache": False}
    if with_mask:
        given["attention_mask"] = torch.stack([(torch.arange(max(LENGTHS)) < length).long() for length in LENGTHS])
    with torch.no_grad():
        with documents_apart(model) as apart:
            assert apart.lengths is None
            logits = model(**given).logits
        real = torch.cat([logits[row : row + 1, :length] for row, length in enumerate(LENGTHS)], dim=1)
        plain = reference(model, (name, attention), tmp_path)
        torch.testing.assert_close(real, one_by_one(plain, texts), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_wrong_lengths_are_seen_in_the_logits(name, attention, tmp_path):
    model, texts = load(name, attention, tmp_path), documents()
    with torch.no_grad():
        alone = one_by_one(reference(model, (name, attention), tmp_path), texts)
        merged = packed(model, texts, (LENGTHS[0] + LENGTHS[1], *LENGTHS[2:]))
    first = LENGTHS[0]
    torch.testing.assert_close(merged[:, :first], alone[:, :first], rtol=1e-5, atol=1e-5)
    assert (merged[:, first] - alone[:, first]).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_the_model_is_left_as_it_was(name, attention, tmp_path):
    model, texts = load(name, attention, tmp_path), documents()
    attributes = {key: set(vars(module)) for key, module in model.named_modules()}
    with torch.no_grad():
        before = one_by_one(model, texts)
        packed(model, texts, LENGTHS)
        with pytest.raises(ZeroDivisionError), documents_apart(model):
            raise ZeroDivisionError
        assert torch.equal(one_by_one(model, texts), before)
    assert {key: set(vars(module)) for key, module in model.named_modules()} == attributes
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_checkpointed_blocks_change_no_bit_of_packed_gradients(name, attention, tmp_path):
    model, texts = load(name, attention, tmp_path), documents()

    def run(*, is_on: bool) -> dict[str, torch.Tensor]:
        with documents_apart(model) as apart, checkpointed_blocks(model, is_on=is_on):
            apart.lengths = LENGTHS
            logits = model(**inputs(torch.cat(texts, dim=1), LENGTHS, model)).logits
            return gradients(loss(logits, texts), model)

    kept, computed_again = run(is_on=False), run(is_on=True)
    assert kept.keys() == computed_again.keys()
    assert all(torch.equal(kept[key], computed_again[key]) for key in kept)


def test_the_library_still_errs_where_another_reference_is_taken(tmp_path):
    """When this fails, transformers has mended Falcon's eager attention, and ALIBI_TWICE can go."""
    eager, sdpa = (load("falcon-rw", kind, tmp_path) for kind in ("eager", "sdpa"))
    with torch.no_grad():
        assert (one_by_one(eager, documents()) - one_by_one(sdpa, documents())).abs().max() > 1e-2


def test_an_architecture_that_is_not_known_refuses_to_pack():
    config = AutoConfig.for_model(
        "gpt_neo", hidden_size=32, num_layers=1, num_heads=4, vocab_size=64, attention_types=[[["global"], 1]]
    )
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match=r"data\.packing"), documents_apart(model):
        raise AssertionError("unreachable")
