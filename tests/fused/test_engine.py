"""The engine by fused kernels, on real modules with plain peft adapters: the library's losses and gradients."""

import numpy as np
import pytest
import torch

from fledge.adapters.fast import as_linear
from fledge.commands.engine import Probe, can_be_fast, kernels_of
from fledge.config.recipe import Recipe
from fledge.engine.block import Keep
from fledge.engine.run import Engine
from fledge.models.body import read_body
from fledge.models.facts import read_facts
from fledge.ops import choice
from fledge.ops.buffers import Buffers
from fledge.ops.choice import unfused
from fledge.training.fast_loss import as_packed
from fledge.training.loss import to_device
from tests.fused.devices import DEVICE, DTYPES, IS_INTERPRETED, needs_kernels
from tests.numbers import test_engine_t5 as pairs
from tests.numbers.engine_models import (
    VARIANTS,
    Result,
    assert_agree,
    batch_of,
    by_library,
    distance,
    model_of,
    result_of,
)

pytestmark = needs_kernels
TRIED = ("bloom",) if IS_INTERPRETED else tuple(VARIANTS)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("engine")


def by_kernels(model, batch, *, keep: Keep = Keep.ALL) -> Result:
    """The engine's, brought back to the CPU."""
    model.to(DEVICE)
    body = read_body(model.get_base_model(), as_linear)
    engine = Engine(body, Buffers(DEVICE), lambda *_: (keep,) * len(body.all_blocks))
    found = result_of(engine.loss(as_packed(to_device(batch, DEVICE))), model)
    return Result(found.loss, tuple(gradient.cpu() for gradient in found.gradients))


@pytest.mark.parametrize("name", TRIED)
def test_loss_and_gradients_are_the_librarys_shared_or_not_whatever_is_kept(name, scratch):
    model = model_of(name, scratch)
    wanted = by_library(model)
    for share in (False, True):
        found = [
            by_kernels(model, batch_of(share=share), keep=keep) for keep in ([Keep.ALL] if IS_INTERPRETED else Keep)
        ]
        assert_agree(found[0], wanted)
        for other in found[1:]:
            assert other.loss == found[0].loss
            assert all(torch.equal(a, b) for a, b in zip(other.gradients, found[0].gradients, strict=True))


@pytest.mark.parametrize("name", ["flan-t5"] if IS_INTERPRETED else ["t5", "flan-t5"])
def test_encoder_decoders_compute_what_they_do_without_the_kernels(name):
    model = pairs.model_of(name)
    batch = pairs.batch_of(is_packed=True)
    with unfused():
        wanted = by_kernels(model, batch)
    assert_agree(by_kernels(model, batch), wanted)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_half_precision_is_no_further_from_float32_than_the_librarys(dtype, scratch):
    """Over all models together, for each alone is a matter of luck."""
    ours, theirs = np.zeros(2), np.zeros(2)
    for name in VARIANTS:
        exact = by_library(model_of(name, scratch, through=dtype))
        ours += distance(by_kernels(model_of(name, scratch, dtype=dtype), batch_of(share=True)), exact)
        theirs += distance(by_library(model_of(name, scratch, dtype=dtype)), exact)
    assert (ours <= 1.5 * theirs).all(), (ours, theirs)


RECIPE = Recipe.model_validate(
    {"model": {"name_or_path": "x"}, "data": {"train": {"path": "a", "format": "text"}, "packing": True}}
)


def test_the_recipe_turns_them_off():
    with kernels_of(RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"kernels": "torch"})})):
        assert choice.why_not(DEVICE) == "they are switched off"
    with kernels_of(RECIPE):
        assert choice.runs_on(DEVICE)


def breaks(*given, **named):
    raise RuntimeError("out of resource: shared memory")


def lies(qkv, *, out, sums, **named):
    sums.zero_()
    return out.fill_(1.0)


@pytest.mark.parametrize(
    ("kernel", "why"), [(None, None), (breaks, "RuntimeError: out of resource: shared memory"), (lies, "differ")]
)
def test_the_proof_before_a_training_leaves_out_kernels_that_fail_or_lie(kernel, why, scratch, monkeypatch):
    monkeypatch.setattr(choice, "_REFUSED", {})
    model = model_of("llama", scratch).to(DEVICE)
    if kernel is not None:
        monkeypatch.setattr(choice.fused("attention", torch.zeros(1, device=DEVICE)), "attend", kernel)
    facts = read_facts(model.get_base_model())
    assert can_be_fast(RECIPE, Probe(model, facts, DEVICE)) is None
    found = choice.why_not(DEVICE)
    assert found is None if why is None else why in found
