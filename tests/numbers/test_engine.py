"""The engine against plain transformers and peft, each row alone: every architecture, every level of keeping."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig

from fledge.adapters.dropout import KeyedDropout
from fledge.commands.engine import build_engine, disagreement
from fledge.commands.library_loss import plain_loss
from fledge.data.collate import collate
from fledge.data.rows import Batch
from fledge.engine.block import Keep
from fledge.engine.parts import adapters
from fledge.engine.run import Engine
from fledge.errors import NotReadable
from fledge.models.documents import documents_apart
from fledge.training.fast_loss import FastLoss, as_packed
from tests.numbers.engine_models import (
    CPU,
    ROWS,
    SUBSETS,
    VARIANTS,
    assert_agree,
    assert_no_further,
    batch_of,
    by_engine,
    by_library,
    distance,
    engine_of,
    model_of,
    result_of,
)
from tests.tiny_models import ARCHITECTURES, VOCABULARY
from tests.unit.adapters.builders import NEW_TOKENS, adapted, base_of, move
from tests.ways import each_way

__all__ = ["each_way"]


def test_there_are_nineteen_models():
    assert len(VARIANTS) == len(ARCHITECTURES) + 8 == 19


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradients_are_the_librarys_shared_or_not_whatever_is_kept(name, scratch):
    model = model_of(name, scratch)
    wanted = by_library(model)
    for share in (False, True):
        found = [by_engine(model, share=share, keep=keep) for keep in Keep]
        assert len(found) == 3
        assert_agree(found[0], wanted)
        for other in found[1:]:
            assert other.loss == found[0].loss
            assert all(torch.equal(a, b) for a, b in zip(other.gradients, found[0].gradients, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_float32_than_the_librarys(dtype, scratch):
    assert_no_further(dtype, scratch, by_engine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_proof_before_a_training_agrees(name, dtype, scratch):
    model = model_of(name, scratch, dtype=dtype)
    engine = build_engine(model, device=CPU, rows=0)
    assert disagreement(engine, model, takes_positions=False) is None


def wrong_scale(block):
    shape = block.attention.shape
    return replace(block, attention=replace(block.attention, shape=replace(shape, scale=2 * shape.scale)))


def wrong_order(block):
    return replace(block, is_parallel=not block.is_parallel)


def wrong_weight(block):
    down = block.mlp.down
    return replace(block, mlp=replace(block.mlp, down=replace(down, weight=down.weight * 1.3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spoil", [wrong_scale, wrong_order, wrong_weight])
def test_the_proof_before_a_training_finds_a_body_that_computes_something_else(spoil, dtype, scratch):
    model = model_of("llama", scratch, dtype=dtype)
    engine = engine_of(model)
    engine.body = replace(engine.body, blocks=(engine.body.blocks[0], spoil(engine.body.blocks[1])))
    assert "differ" in (disagreement(engine, model, takes_positions=False) or "")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_the_proof_before_a_training_agrees_where_no_block_has_an_adapter(target, scratch):
    model = model_of("llama", scratch, target_modules=[target])
    engine = build_engine(model, device=CPU, rows=0)
    assert disagreement(engine, model, takes_positions=False) is None


@pytest.mark.parametrize(("name", "targets"), SUBSETS)
def test_adapters_on_a_part_of_the_linears_have_the_librarys_gradients(name, targets, scratch):
    model = model_of(name, scratch, target_modules=targets)
    wanted = by_library(model)
    for keep in Keep:
        assert_agree(by_engine(model, keep=keep), wanted)


def saved_blocks(engine: Engine) -> set[str]:
    return {name.split(".")[0] for name, *_ in engine.buffers._flat if name[0].isdigit()}


@pytest.mark.parametrize("keep", list(Keep))
def test_adapters_in_the_last_block_alone_save_nothing_of_the_first(keep, scratch):
    model = model_of("llama", scratch, target_modules=r".*layers\.1\..*_proj")
    engine = engine_of(model, keep=keep)
    engine.loss(as_packed(batch_of(share=True))).backward()
    assert saved_blocks(engine) == {"1"}
    assert len(adapters(engine.body.blocks[1])) == 14


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dropout_drops_what_the_librarys_modules_drop(name, tmp_path):
    """Packed through the library's own modules, with masks by step, row and module as in a training."""
    base = base_of(name, tmp_path)
    trained = move(adapted(base, lora_dropout=0.3))
    dropouts = [module.train() for module in trained.model.modules() if isinstance(module, KeyedDropout)]
    assert len(dropouts) >= 8
    keys, batch = trained.dropout, collate(ROWS, [7, 3, 20, 5, 6, 11], is_packed=True, pad_id=0)
    keys.step = 4

    def announce(batch: Batch) -> None:
        keys.rows, keys.lengths, keys.is_packed = batch.rows, batch.lengths, True

    with documents_apart(base.model) as documents:
        plain = plain_loss(base.facts, documents, keys=keys)
        wanted = result_of(plain(trained.model, batch), trained.model)
    for keep in Keep:
        fast = FastLoss(announce, engine_of(trained.model, keep=keep))
        found = result_of(fast(trained.model, batch), trained.model)
        assert_agree(found, wanted)
    keys.step = 5
    assert distance(result_of(fast(trained.model, batch), trained.model), wanted)[1] > 0.01


WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"modules_to_save": ["lm_head"]}),
    ("llama", {"modules_to_save": ["embed_tokens"]}),
    ("llama", {"modules_to_save": ["lm_head", "embed_tokens"], "target_modules": ["v_proj"]}),
    ("mistral", {"modules_to_save": ["lm_head"], "target_modules": r".*layers\.1\..*_proj"}),
    ("phi", {"modules_to_save": ["lm_head"]}),
    ("gpt-neox", {"modules_to_save": ["embed_out", "embed_in"]}),
    ("gemma2", {"trainable_token_indices": {"embed_tokens": [5, 9, 300]}}),
    ("qwen2", {"trainable_token_indices": {"embed_tokens": [5, 9, 300]}}),
    ("bloom", {"trainable_token_indices": {"word_embeddings": [5, 9, 300]}}),
]


@pytest.mark.parametrize(("name", "changes"), WHOLE)
def test_what_is_trained_at_the_ends_has_the_librarys_gradients(name, changes, scratch):
    model = model_of(name, scratch, **changes)
    generator = torch.Generator().manual_seed(8)
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora" not in parameter_name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    wanted = by_library(model)
    assert len(wanted.gradients) > 2
    for keep in Keep:
        assert_agree(by_engine(model, keep=keep), wanted)
    assert disagreement(engine_of(model), model, takes_positions=False) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "phi", "gpt2", "gemma2", "falcon-rw"])
def test_new_tokens_are_trained_as_by_the_library(name, dtype, tmp_path):
    base = base_of(name, tmp_path, dtype)
    new = tuple(range(VOCABULARY - 4, VOCABULARY - 4 + len(NEW_TOKENS)))
    trained = move(adapted(base, new_tokens=new))
    wanted = by_library(trained.model)
    found = by_engine(trained.model)
    if dtype == "float32":
        assert_agree(found, wanted)
    else:
        of_loss, of_gradients = distance(found, wanted)
        assert of_loss < 3e-3
        assert of_gradients < 0.08


UNREADABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "DoRA": ("llama", {"use_dora": True}),
    "a bias of LoRA's": ("llama", {"lora_bias": True}),
    "a trained bias": ("llama with biases", {"bias": "lora_only"}),
    "a trained norm of a block": ("llama", {"modules_to_save": ["input_layernorm"]}),
    "a trained last norm": ("gpt2", {"modules_to_save": ["ln_f"]}),
    "a linear trained whole": ("llama", {"modules_to_save": ["down_proj"], "target_modules": ["q_proj"]}),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_the_engine_does_not_do_is_not_read(what, scratch):
    name, changes = UNREADABLE[what]
    with pytest.raises(NotReadable):
        engine_of(model_of(name, scratch, **changes))


def add_second(model) -> None:
    model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["default", "other"])


def merge(model) -> None:
    model.merge_adapter()


def drop_by_peft(model) -> None:
    for module in model.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = torch.nn.Dropout(0.1)


def quantise(model) -> None:
    layer = next(m for n, m in model.named_modules() if n.endswith("up_proj.base_layer"))
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)


def train_a_base_weight(model) -> None:
    next(m for n, m in model.named_modules() if n.endswith("up_proj.base_layer")).weight.requires_grad_(True)


@pytest.mark.parametrize("change", [add_second, merge, drop_by_peft, quantise, train_a_base_weight])
def test_what_was_done_to_a_model_that_the_engine_does_not_do_is_not_read(change: Callable[[Any], None], scratch):
    model = model_of("llama", scratch)
    change(model)
    with pytest.raises(NotReadable):
        engine_of(model)


@torch.no_grad()
def loss_by_both(model) -> tuple[float, float]:
    found = engine_of(model).loss(as_packed(batch_of(share=True))).item()
    total = 0.0
    for row in ROWS:
        ids = torch.from_numpy(row.input_ids.astype(np.int64))
        labels = torch.where(torch.from_numpy(row.trained), ids, -100)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        total += F.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum").item()
    return found, total


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_model_that_is_not_trained_has_the_librarys_loss_with_its_adapter_and_without(name, scratch):
    model = model_of(name, scratch, lora_dropout=0.1).requires_grad_(False)
    with_adapter, wanted = loss_by_both(model)
    assert with_adapter == pytest.approx(wanted, rel=1e-6)
    with model.disable_adapter():
        without, wanted = loss_by_both(model)
    assert without == pytest.approx(wanted, rel=1e-6)
    assert without != pytest.approx(with_adapter, rel=1e-3)


class OwnMlp(torch.nn.Module):
    def forward(self, x):
        return x


def test_blocks_of_another_kind_are_not_read(scratch):
    model = model_of("llama", scratch)
    model.get_base_model().model.layers[1] = OwnMlp()
    with pytest.raises(NotReadable, match="several types"):
        engine_of(model)
    model.get_base_model().model.layers[0] = OwnMlp()
    with pytest.raises(NotReadable, match="no blocks"):
        engine_of(model)
