"""Attention that a recipe names: run where it can, refused with the reason where it cannot."""

import pytest
import torch

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models import attention, documents, load
from fledge.models.attention import IMPLEMENTATIONS, named
from fledge.models.load import load_base
from tests.tiny_models import tiny_folder

CPU = torch.device("cpu")


def test_every_name_leads_to_transformers_and_back():
    assert [named(implementation) for implementation in IMPLEMENTATIONS.values()] == list(IMPLEMENTATIONS)
    assert named("flex_attention") == "auto"


def test_flash_is_refused_where_it_cannot_run(tmp_path, monkeypatch):
    folder = tiny_folder("llama", tmp_path)
    monkeypatch.setattr(load, "flash_missing", lambda: "the package flash-attn is not installed")
    with pytest.raises(ModelError, match="flash attention cannot run here: the package flash-attn is not installed"):
        load_base(ModelConfig(name_or_path=str(folder), attention="flash"), device=CPU)


@pytest.mark.parametrize(("has_gpu", "has_package", "lacks"), [(False, True, "GPU"), (True, False, "flash-attn")])
def test_what_flash_lacks_is_said(has_gpu, has_package, lacks, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object() if has_package else None)
    assert lacks in (attention.flash_missing() or "")


def test_with_a_gpu_and_the_package_flash_lacks_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object())
    assert attention.flash_missing() is None


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_float16_is_refused_where_the_family_overflows_in_it(name, tmp_path):
    folder = tiny_folder(name, tmp_path)
    config = ModelConfig(name_or_path=str(folder), dtype="float16")
    if name == "bart":
        assert load_base(config, device=CPU).facts.is_encoder_decoder
        return
    with pytest.raises(ModelError, match="overflows in float16") as caught:
        load_base(config, device=CPU)
    assert "write model.dtype: bfloat16, or float32" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_encoder_decoder_is_held_in_one_number_format(dtype, tmp_path):
    base = load_base(ModelConfig(name_or_path=str(tiny_folder("t5", tmp_path)), dtype=dtype), device=CPU)
    assert {p.dtype for p in base.model.parameters()} == {getattr(torch, dtype)}
    assert base.facts.num_layers == 4
    assert base.facts.linear_names == ("q", "k", "v", "o", "wi_0", "wi_1", "wo")


def test_flash_is_called_for_each_document_without_a_mask_or_the_whole_rows_positions(tmp_path, monkeypatch):
    asked = []

    def flash(module, query, key, value, attention_mask, **options):
        asked.append((query.shape[2], key.shape[2], attention_mask, "position_ids" in options))
        return query.transpose(1, 2), None

    model = load_base(ModelConfig(name_or_path=str(tiny_folder("llama", tmp_path))), device=CPU).model
    monkeypatch.setattr(documents, "_inner", lambda module, name: flash)
    with documents.documents_apart(model) as apart:
        apart.inner, apart.lengths = IMPLEMENTATIONS["flash"], (3, 5)
        model(input_ids=torch.arange(8)[None], position_ids=torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]]), use_cache=False)
    assert asked == [(3, 3, None, False), (5, 5, None, False)] * 2
