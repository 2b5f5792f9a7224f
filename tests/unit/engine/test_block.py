"""The engine on bodies made by hand: plain torch's gradients of each row alone, the same bits whatever is kept."""

from dataclasses import replace

import pytest
import torch

from fledge.engine.block import Keep
from fledge.engine.parts import adapters, linears
from fledge.engine.run import Engine
from fledge.ops.buffers import Buffers
from fledge.ops.lora_linear import Lora
from tests.unit.engine.bodies import KINDS, body_of, packed, reference_loss, rows_of, with_trained_embedding
from tests.unit.ops.near import assert_near

CPU = torch.device("cpu")
ROWS = rows_of()
KEEPS = tuple(Keep)


def engine_of(body, *, keep: Keep = Keep.ALL, grain: int = 32) -> Engine:
    return Engine(body, Buffers(CPU), lambda *_: (keep,) * len(body.blocks), grain)


def trained_in(body) -> list[torch.nn.Parameter]:
    return [p for block in body.blocks for p in adapters(block)]


def by_us(engine: Engine, batch, *more) -> list[torch.Tensor]:
    """The loss and the gradients of all that is trained."""
    loss = engine.loss(batch)
    return [loss.detach(), *torch.autograd.grad(loss, [*trained_in(engine.body), *more])]


def by_reference(body, *more) -> list[torch.Tensor]:
    loss = reference_loss(body, ROWS)
    return [loss.detach(), *torch.autograd.grad(loss, [*trained_in(body), *more])]


def are_equal(some, others) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_there_are_seven_kinds_of_body_and_three_levels():
    assert len(KINDS) == 7
    assert KEEPS == (Keep.ALL, Keep.MIDDLE, Keep.INPUT)


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_loss_and_gradients_are_those_of_each_row_alone_in_plain_torch(name, is_shared):
    body = body_of(name)
    found = by_us(engine_of(body), packed(ROWS, is_shared=is_shared))
    assert len(found) == 1 + 2 * sum(len(linears(block)) for block in body.blocks)
    assert_near(found, by_reference(body))


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_kept_changes_no_bit(name, is_shared):
    body, batch = body_of(name), packed(ROWS, is_shared=is_shared)
    wanted = by_us(engine_of(body), batch)
    mixed = Engine(body, Buffers(CPU), lambda *_: (Keep.INPUT, Keep.ALL, Keep.MIDDLE))
    for engine in (engine_of(body, keep=Keep.MIDDLE), engine_of(body, keep=Keep.INPUT), mixed):
        assert are_equal(by_us(engine, batch), wanted)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", KINDS)
def test_what_lies_in_the_buffers_does_not_matter(name, keep):
    engine, batch = engine_of(body_of(name), keep=keep), packed(ROWS, is_shared=True)
    before = by_us(engine, batch)
    for flat in engine.buffers._flat.values():
        flat.fill_(float("nan"))
    assert are_equal(by_us(engine, batch), before)


def test_batches_of_other_sizes_before_change_no_bit():
    engine, batch = engine_of(body_of("llama"), keep=Keep.MIDDLE), packed(ROWS, is_shared=False)
    wanted = by_us(engine, batch)
    for rows in (rows_of((90, 70, 30)), rows_of((8,))):
        by_us(engine, packed(rows, is_shared=False))
    assert are_equal(by_us(engine, batch), wanted)


@pytest.mark.parametrize("name", KINDS)
def test_the_grain_of_sizes_changes_nothing_but_rounding(name):
    body, batch = body_of(name), packed(ROWS, is_shared=True)
    wanted = by_us(engine_of(body, grain=1), batch)
    assert_near(by_us(engine_of(body, grain=96), batch), wanted)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", KINDS)
def test_without_gradients_the_loss_is_the_same_and_nothing_is_saved(name, keep):
    engine, batch = engine_of(body_of(name), keep=keep), packed(ROWS, is_shared=True)
    with torch.no_grad():
        alone = engine.loss(batch)
    assert not alone.requires_grad
    assert not kept_blocks(engine)
    assert_near([alone], [engine.loss(batch).detach()], within=1e-6)


def kept_blocks(engine: Engine) -> set[int]:
    """The blocks that have buffers of their own."""
    names = {name.split(".")[0] for name, *_ in engine.buffers._flat}
    return {int(name) for name in names if name.isdigit()}


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("adapted", [(True, True, True), (False, True, False), (False, False, True)])
def test_blocks_below_the_first_adapter_save_nothing(adapted, keep):
    body = body_of("llama", adapted=adapted)
    engine, lowest = engine_of(body, keep=keep), adapted.index(True)
    found = by_us(engine, packed(ROWS, is_shared=True))
    assert kept_blocks(engine) == set(range(lowest, 3))
    assert len(found) == 1 + 2 * 7 * sum(adapted)
    assert_near(found, by_reference(body))


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_one_adapter_alone_has_its_gradient(name, place, keep):
    body = body_of(name, adapted=(False, True, False))
    bare, block = body_of(name, adapted=(False, False, False)), body.blocks[1]
    one = only_adapter(block, place)
    body = replace(body, blocks=(bare.blocks[0], one, bare.blocks[2]))
    found = by_us(engine_of(body, keep=keep), packed(ROWS, is_shared=True))
    assert len(found) == 3
    assert_near(found, by_reference(body))


def only_adapter(block, place: int):
    """The block with the adapter of its linear number `place` alone."""
    kept = [layer if n == place else replace(layer, lora=None) for n, layer in enumerate(linears(block))]
    *projections, out, gate, up, down = kept
    attention = replace(block.attention, projections=tuple(projections), out=out)
    return replace(block, attention=attention, mlp=replace(block.mlp, gate=gate, up=up, down=down))


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", KINDS)
def test_a_trained_embedding_has_its_gradient(name, keep):
    body, extra = with_trained_embedding(body_of(name, adapted=(False, True, False)))
    engine = engine_of(body, keep=keep)
    found = by_us(engine, packed(ROWS, is_shared=True), extra)
    assert kept_blocks(engine) == {0, 1, 2}
    assert_near(found, by_reference(body, extra))


def test_a_trained_embedding_needs_no_adapter_in_any_block():
    body, extra = with_trained_embedding(body_of("llama", adapted=(False, False, False)))
    assert_near(by_us(engine_of(body), packed(ROWS, is_shared=True), extra), by_reference(body, extra))


def test_a_trained_head_needs_no_adapter_in_any_block():
    body = body_of("llama", adapted=(False, False, False))
    weight = torch.nn.Parameter(body.head.weight.clone())
    body = replace(body, head=None, logits=lambda hidden: hidden @ weight.t())
    found = by_us(engine_of(body), packed(ROWS, is_shared=True), weight)
    assert_near(found, by_reference(body, weight))


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_head_of_the_librarys_gives_the_same(is_shared):
    body = body_of("gemma2", head_bias=True)
    batch = packed(ROWS, is_shared=is_shared)
    assert_near(by_us(engine_of(replace(body, head=None)), batch), by_us(engine_of(body), batch))


def test_dropout_is_of_all_positions_in_every_block():
    """Masks are drawn by position, so no position may be left out; the reference is given the same masks."""
    rows = ROWS[:1]
    padded = torch.zeros(64, 48)
    padded[: len(rows[0])] = (torch.rand(len(rows[0]), 48, generator=torch.Generator().manual_seed(5)) > 0.4) / 0.6

    def drop(x):
        return x * padded[: x.shape[0], : x.shape[1]]

    body = body_of("llama")
    body = replace(body, blocks=tuple(with_dropout(block, drop) for block in body.blocks))
    loss = reference_loss(body, rows)
    wanted = [loss.detach(), *torch.autograd.grad(loss, trained_in(body))]
    for keep in KEEPS:
        assert_near(by_us(engine_of(body, keep=keep), packed(rows, is_shared=False)), wanted)


def with_dropout(block, drop):
    def dropped(layer):
        return replace(layer, lora=Lora(layer.lora.a, layer.lora.b, layer.lora.scale, drop))

    *projections, out, gate, up, down = (dropped(layer) for layer in linears(block))
    attention = replace(block.attention, projections=tuple(projections), out=out)
    return replace(block, attention=attention, mlp=replace(block.mlp, gate=gate, up=up, down=down))


@pytest.mark.parametrize("is_training", [False, True])
def test_a_backward_pass_after_another_forward_pass_is_refused(is_training):
    engine, batch = engine_of(body_of("llama")), packed(ROWS, is_shared=False)
    stale = engine.loss(batch)
    with torch.set_grad_enabled(is_training):
        fresh = engine.loss(batch)
    with pytest.raises(AssertionError, match="another forward pass"):
        stale.backward()
    if is_training:
        assert len(torch.autograd.grad(fresh, trained_in(engine.body))) == len(trained_in(engine.body))


def test_the_factor_of_a_loss_is_the_factor_of_its_gradients():
    engine, batch = engine_of(body_of("llama")), packed(ROWS, is_shared=False)
    once = torch.autograd.grad(engine.loss(batch), trained_in(engine.body))
    thrice = torch.autograd.grad(engine.loss(batch) * 3.0, trained_in(engine.body))
    assert_near(thrice, [3.0 * part for part in once])


def test_few_supervised_tokens_and_many_positions_are_one_loss():
    """All but the tokens that are supervised is left out after the last block's attention."""
    body, batch = body_of("llama"), packed(ROWS, is_shared=False)
    some = torch.arange(0, len(batch.sources), 9)
    few = replace(batch, sources=batch.sources[some], targets=batch.targets[some])
    rest = torch.tensor([n for n in range(len(batch.sources)) if n % 9])
    others = replace(batch, sources=batch.sources[rest], targets=batch.targets[rest])
    engine = engine_of(body)
    parts = [a + b for a, b in zip(by_us(engine, few), by_us(engine, others), strict=True)]
    assert_near(parts, by_us(engine, batch))
