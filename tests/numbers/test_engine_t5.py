"""The engine on real T5 modules with a plain peft adapter: the library's losses and gradients of each pair alone."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from fledge.adapters.fast import as_linear
from fledge.data.collate_pairs import collate_pairs
from fledge.data.rows import Row
from fledge.engine.block import Keep
from fledge.engine.run import Engine
from fledge.errors import NotReadable
from fledge.models.body import read_body
from fledge.ops.buffers import Buffers
from fledge.training.fast_loss import as_packed
from fledge.training.loss import PairLoss
from tests.numbers.on_meta import assert_asks_nothing
from tests.unit.ops.near import assert_near, assert_no_worse
from tests.ways import each_way

__all__ = ["each_way"]

CPU = torch.device("cpu")
SIZES = {"vocab_size": 120, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2}
MORE = {"num_heads": 4, "decoder_start_token_id": 0, "relative_attention_num_buckets": 8}
NEAR = {"relative_attention_max_distance": 12}
GATED = {"feed_forward_proj": "gated-gelu"}
VARIANTS = {
    "t5": (T5ForConditionalGeneration, T5Config, {}),
    "flan-t5": (T5ForConditionalGeneration, T5Config, GATED | {"tie_word_embeddings": False}),
    "flan-t5 tied": (T5ForConditionalGeneration, T5Config, GATED),
    "mt5": (MT5ForConditionalGeneration, MT5Config, GATED | {"tie_word_embeddings": False}),
}
TARGETS = {"q and v": ["q", "v"], "all": ["q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"]}


def model_of(name: str, *, targets: str = "all", dtype: torch.dtype = torch.float32):
    kind, config, changes = VARIANTS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = kind(config(**(SIZES | MORE | NEAR | changes)))
        for parameter in base.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
        base = base.to(torch.bfloat16).to(dtype)
        has = {module.rsplit(".", 1)[-1] for module, _ in base.named_modules()}
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=[t for t in TARGETS[targets] if t in has])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(base, lora).eval()
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                parameter.data = 0.1 * torch.randn(parameter.shape)
    return model


def rows_of(seed: int) -> list[Row]:
    dice = np.random.default_rng(seed)
    rows = []
    for source, target in ((17, 5), (40, 9), (3, 33), (9, 1)):
        ids = dice.integers(1, 120, source + target).astype(np.int32)
        rows.append(Row(ids, np.arange(source + target) >= source))
    return rows


ROWS = rows_of(3)


def trained_in(model) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def by_library(model) -> list[torch.Tensor]:
    """Each pair alone."""
    total = torch.zeros(())
    for row in ROWS:
        ids = torch.from_numpy(row.input_ids.astype(np.int64))
        source, target = ids[~torch.from_numpy(row.trained)], ids[torch.from_numpy(row.trained)]
        logits = model(input_ids=source[None], labels=target[None], use_cache=False).logits[0]
        total = total + F.cross_entropy(logits.float(), target, reduction="sum")
    return [total.detach(), *torch.autograd.grad(total, trained_in(model))]


def batch_of(*, is_packed: bool):
    return collate_pairs(ROWS, range(len(ROWS)), is_packed=is_packed, pad_id=0, start_id=0)


def by_engine(model, *, keep: Keep = Keep.ALL) -> list[torch.Tensor]:
    body = read_body(model.get_base_model(), as_linear)
    engine = Engine(body, Buffers(CPU), lambda *_: (keep,) * len(body.all_blocks))
    loss = engine.loss(as_packed(batch_of(is_packed=True)))
    return [loss.detach(), *torch.autograd.grad(loss, trained_in(model))]


def together(gradients: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("name", VARIANTS)
def test_packed_losses_and_gradients_are_those_of_each_pair_alone(name, targets):
    model = model_of(name, targets=targets)
    assert_near(by_engine(model), by_library(model))


@pytest.mark.parametrize("keep", [Keep.MIDDLE, Keep.INPUT])
def test_what_is_kept_changes_no_bit(keep):
    model = model_of("flan-t5")
    pairs = zip(by_engine(model, keep=keep), by_engine(model), strict=True)
    assert all(torch.equal(ours, wanted) for ours, wanted in pairs)


@pytest.mark.parametrize("keep", [Keep.ALL, Keep.INPUT])
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradients_ask_nothing_of_their_device(name, keep):
    assert_asks_nothing(model_of(name), batch_of(is_packed=True), keep=keep)


@pytest.mark.parametrize("name", VARIANTS)
def test_in_bfloat16_it_is_no_worse_than_the_librarys(name, monkeypatch):
    """Over twelve drawings of rows together: how a single loss rounds is a matter of luck."""
    exact, half = model_of(name), model_of(name, dtype=torch.bfloat16)
    losses, gradients = [], []
    for seed in range(12):
        monkeypatch.setattr(f"{__name__}.ROWS", rows_of(seed))
        found = [by_engine(half), by_library(half), by_library(exact)]
        losses.append([one[0].float() for one in found])
        gradients.append([together(one[1:]).float() for one in found])
    assert_no_worse(*([torch.stack(each)] for each in zip(*losses, strict=True)))
    assert_no_worse(*([torch.stack(each)] for each in zip(*gradients, strict=True)), factor=1.2)


@pytest.mark.parametrize("name", VARIANTS)
def test_padded_rows_through_the_library_have_the_same_loss(name):
    model = model_of(name)
    loss = PairLoss(lambda batch: None)(model, batch_of(is_packed=False))
    assert_near([loss.detach(), *torch.autograd.grad(loss, trained_in(model))], by_library(model))


def test_bart_is_computed_by_the_library():
    shape = {"d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3}
    more = {"decoder_attention_heads": 3, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 120}
    model = BartForConditionalGeneration(BartConfig(**shape, **more)).eval()
    with pytest.raises(NotReadable, match="no blocks that the engine knows"):
        read_body(model, as_linear)
    loss = PairLoss(lambda batch: None)(model, batch_of(is_packed=False))
    alone = []
    for row in ROWS:
        ids = torch.from_numpy(row.input_ids.astype(np.int64))
        source, target = ids[~torch.from_numpy(row.trained)], ids[torch.from_numpy(row.trained)]
        written = torch.cat([target.new_zeros(1), target[:-1]])
        logits = model(input_ids=source[None], decoder_input_ids=written[None]).logits[0]
        alone.append(F.cross_entropy(logits, target, reduction="sum"))
    assert_near([loss.detach()], [torch.stack(alone).sum().detach()])
