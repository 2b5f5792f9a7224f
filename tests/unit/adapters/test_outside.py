"""An adapter has the logits it was saved with: in plain peft without Fledge, loaded again, and merged."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fledge.adapters.merge import merge
from fledge.adapters.save import load_adapter, save_adapter
from fledge.errors import ModelError, ProofError
from fledge.exporting.outside import OutsideCase, ask_outside
from tests.tiny_models import ARCHITECTURES, VOCABULARY
from tests.unit.adapters.builders import ROWS, adapted, base_of, logits_of, move, save_tokenizer

VARIANTS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa-rslora": {"init_lora_weights": "pissa", "use_rslora": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "modules-to-save": {"modules_to_save": ("embed_tokens", "norm")},
    "regex": {"target_modules": r".*\.(q_proj|down_proj)"},
    "list": {"target_modules": ("v_proj", "up_proj")},
}
CASES = {
    **{name: (name, {}, False) for name in ARCHITECTURES},
    **{variant: ("llama", options, False) for variant, options in VARIANTS.items()},
    "dora-conv1d": ("gpt2", {"use_dora": True}, False),
    "pissa-conv1d": ("gpt2", {"init_lora_weights": "pissa"}, False),
    **{f"{name}-new-tokens": (name, {}, True) for name in ARCHITECTURES},
    "new-tokens-pissa": ("llama", {"init_lora_weights": "pissa"}, True),
}


@dataclass(frozen=True)
class Saved:
    base: Path
    adapter: Path
    rows: tuple[tuple[int, ...], ...]
    tuned: list[torch.Tensor]
    untuned: list[torch.Tensor]
    start: list[torch.Tensor]
    is_tied: bool
    outside: tuple[torch.Tensor, ...]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Saved]:
    """Every case saved, and what one process without Fledge makes of all of them."""
    folder, found, asked = tmp_path_factory.mktemp("adapters"), {}, []
    for name, (architecture, options, is_extended) in CASES.items():
        base, adapter = folder / f"{name}-base", folder / name
        loaded = base_of(architecture, base)
        new = (VOCABULARY, VOCABULARY + 1) if is_extended else ()
        rows = (*ROWS, (4, *new, 8)) if new else ROWS
        untuned = logits_of(loaded.model)
        fresh = adapted(loaded, new_tokens=new, **options)
        start = logits_of(fresh.model)
        trained = move(fresh)
        save_adapter(trained, adapter, base=str(base), revision="main")
        save_tokenizer(base, adapter, with_new=is_extended)
        asked.append(OutsideCase(base=str(base), folder=str(adapter), rows=rows))
        found[name] = (base, adapter, rows, logits_of(trained.model, rows), untuned, start, loaded.facts.is_head_tied)
    return {
        name: Saved(*first, outside.logits)
        for (name, first), outside in zip(found.items(), ask_outside(asked), strict=True)
    }


def test_the_cases_are_all_there(saved):
    assert len(saved) == len(CASES) == 2 * 11 + 9 + 2 + 1


@pytest.mark.parametrize("name", CASES)
def test_a_fresh_adapter_changes_no_logit(saved, name):
    case = saved[name]
    known = [logits[:, :VOCABULARY] for logits in case.start]
    torch.testing.assert_close(known, case.untuned, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_plain_peft_without_fledge_gives_the_logits_that_were_trained(saved, name):
    case = saved[name]
    torch.testing.assert_close(list(case.outside), case.tuned, rtol=1e-5, atol=2e-5)
    assert max((a[:, :VOCABULARY] - b).abs().max() for a, b in zip(case.outside, case.untuned, strict=False)) > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_adapter_gives_the_logits_that_were_trained(saved, name):
    case = saved[name]
    model = load_adapter(base_of("", case.base).model, case.adapter)
    torch.testing.assert_close(logits_of(model, case.rows), case.tuned, rtol=1e-5, atol=2e-5)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_a_merged_model_gives_the_logits_that_were_trained(saved, name, tmp_path):
    case = saved[name]
    merged = merge(load_adapter(base_of("", case.base).model, case.adapter))
    torch.testing.assert_close(logits_of(merged, case.rows), case.tuned, rtol=1e-4, atol=1e-4)
    assert not any("lora" in key or "base_layer" in key for key, _ in merged.named_modules())
    is_tied = merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    assert is_tied == case.is_tied
    merged.save_pretrained(tmp_path)
    again = base_of("", tmp_path).model
    torch.testing.assert_close(logits_of(again, case.rows), case.tuned, rtol=1e-4, atol=1e-4)


def test_a_broken_adapter_is_refused_in_plain_pefts_words(saved, tmp_path):
    save_tokenizer(saved["llama"].base, tmp_path)
    case = OutsideCase(base=str(saved["llama"].base), folder=str(tmp_path), rows=ROWS)
    with pytest.raises(ProofError, match="plain peft cannot load"):
        ask_outside([case])


def test_a_folder_without_an_adapter_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="no adapter here"):
        load_adapter(base_of("llama", tmp_path / "base").model, tmp_path)


def test_an_adapter_that_is_not_finite_cannot_be_merged(tmp_path):
    trained = move(adapted(base_of("llama", tmp_path)))
    next(p for p in trained.model.parameters() if p.requires_grad).data[0, 0] = float("nan")
    with pytest.raises(ProofError, match="cannot be merged"):
        merge(trained.model)
