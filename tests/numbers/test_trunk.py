"""What a step's micro-batches begin with, computed once: every architecture, against each row alone."""

import gc
import weakref

import numpy as np
import pytest
import torch

from fledge.data.batches import BatchSource, OneStep, Shape
from fledge.data.rows import Batch, Row
from fledge.engine.block import Keep
from fledge.training.fast_loss import as_packed
from tests.numbers.engine_models import (
    SUBSETS,
    VARIANTS,
    Result,
    assert_agree,
    assert_no_further,
    by_library,
    engine_of,
    model_of,
    trained_in,
)
from tests.tiny_models import VOCABULARY
from tests.ways import each_way

__all__ = ["each_way"]


def _rows() -> list[Row]:
    """Two templates that begin alike, each with rows of its own, and rows that begin alone."""
    dice = np.random.default_rng(11)
    draw = lambda count: dice.integers(3, VOCABULARY, count)  # noqa: E731
    begin = draw(50)
    templates = [np.concatenate([begin, draw(8)]), np.concatenate([begin, draw(10)]), draw(0)]
    found = []
    for kind, own in ((0, 9), (1, 14), (0, 21), (1, 6), (0, 12), (1, 17), (2, 33), (0, 7)) * 4:
        ids = np.concatenate([templates[kind], draw(own)]).astype(np.int32)
        trained = dice.random(len(ids)) < 0.6
        trained[: len(templates[kind]) + 1] = False
        found.append(Row(ids, trained))
    return found


ROWS = OneStep(tuple(_rows()))


def batches_on_trunk(*, limit: int = 130) -> list[Batch]:
    shape = Shape(limit, None, is_packed=True, pad_id=0, share=True, has_trunk=True)
    found = BatchSource(ROWS, ROWS, shape, 0, 1).micro_batches(1)
    assert len(found) > 1
    assert all(batch.trunk is not None and batch.trunk.positions == 68 for batch in found)
    return found


def by_engine(engine, model) -> Result:
    """The step's loss and gradients, micro-batch after micro-batch."""
    total = 0.0
    for batch in batches_on_trunk():
        loss = engine.loss(as_packed(batch))
        loss.backward()
        total += loss.item()
    gradients = tuple(p.grad for p in trained_in(model))
    for parameter in trained_in(model):
        parameter.grad = None
    return Result(total, gradients)


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradients_are_the_librarys_whatever_is_kept(name, scratch):
    model = model_of(name, scratch)
    wanted = by_library(model, ROWS.found)
    found = [by_engine(engine_of(model, keep=keep), model) for keep in Keep]
    assert_agree(found[0], wanted)
    for other in found[1:]:
        assert other.loss == found[0].loss
        assert all(torch.equal(a, b) for a, b in zip(other.gradients, found[0].gradients, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_float32_than_the_librarys(dtype, scratch):
    assert_no_further(dtype, scratch, lambda model: by_engine(engine_of(model), model), rows=ROWS.found)


@pytest.mark.parametrize(("name", "targets"), SUBSETS)
def test_adapters_on_a_part_of_the_linears_have_the_librarys_gradients(name, targets, scratch):
    model = model_of(name, scratch, target_modules=targets)
    assert_agree(by_engine(engine_of(model), model), by_library(model, ROWS.found))


def test_a_step_that_broke_off_leaves_nothing_to_the_next(scratch):
    model = model_of("llama", scratch)
    engine = engine_of(model)
    wanted = by_engine(engine, model)
    first, *_ = batches_on_trunk()
    engine.loss(as_packed(first)).backward()
    for parameter in trained_in(model):
        parameter.grad = None
    found = by_engine(engine, model)
    assert found.loss == wanted.loss
    assert all(torch.equal(a, b) for a, b in zip(found.gradients, wanted.gradients, strict=True))


def test_without_its_first_micro_batch_a_trunk_is_refused(scratch):
    model = model_of("llama", scratch)
    with pytest.raises(AssertionError, match="comes first"):
        engine_of(model).loss(as_packed(batches_on_trunk()[1]))


def test_a_trunk_is_let_go_and_so_is_its_model(scratch):
    model = model_of("llama", scratch)
    engine = engine_of(model)
    seen = [weakref.ref(parameter) for parameter in model.parameters()]
    for _ in range(3):
        first, *others = batches_on_trunk()
        engine.loss(as_packed(first))  # of a step that broke off
        for batch in (first, *others):
            engine.loss(as_packed(batch)).backward()
            seen.append(weakref.ref(engine.trunk.roots[0].key))
    del model, engine
    gc.collect()
    assert all(ref() is None for ref in seen)
