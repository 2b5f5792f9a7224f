"""The engine on an encoder-decoder made by hand: plain torch's gradients of each pair alone, whatever is kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.engine.block import Keep
from fledge.engine.keeping import choose_keeps, kept_bytes
from fledge.engine.parts import adapters, linears
from fledge.engine.run import Engine
from fledge.ops.buffers import Buffers
from fledge.ops.choice import runs_on
from fledge.ops.grain import rounded
from tests.unit.engine.bodies import packed_pairs, pair_of, pairs_of, reference_pair_loss
from tests.unit.ops.near import assert_near

CPU = torch.device("cpu")
PAIRS = pairs_of()


def engine_of(body, *, keep: Keep = Keep.ALL, grain: int = 32) -> Engine:
    return Engine(body, Buffers(CPU), lambda *_: (keep,) * len(body.all_blocks), grain)


def trained_in(body) -> list[torch.nn.Parameter]:
    return [p for block in body.all_blocks for p in adapters(block)]


def by_us(engine: Engine, batch) -> list[torch.Tensor]:
    loss = engine.loss(batch)
    return [loss.detach(), *torch.autograd.grad(loss, trained_in(engine.body))]


def by_reference(body, pairs=PAIRS) -> list[torch.Tensor]:
    loss = reference_pair_loss(body, pairs)
    return [loss.detach(), *torch.autograd.grad(loss, trained_in(body))]


@pytest.mark.parametrize("keep", list(Keep))
def test_loss_and_gradients_are_those_of_each_pair_alone(keep):
    body = pair_of()
    found = by_us(engine_of(body, keep=keep), packed_pairs(PAIRS))
    assert len(found) == 1 + 2 * sum(len(linears(block)) for block in body.all_blocks) == 1 + 2 * 2 * (7 + 11)
    assert_near(found, by_reference(body))


@pytest.mark.parametrize("encoder", [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("decoder", [(True, True), (False, True), (False, False)])
def test_adapters_of_either_side_alone_have_their_gradients(encoder, decoder):
    if not any((*encoder, *decoder)):
        return
    body = pair_of(encoder=encoder, decoder=decoder)
    assert_near(by_us(engine_of(body), packed_pairs(PAIRS)), by_reference(body))


def test_what_is_kept_changes_no_bit():
    body, batch = pair_of(), packed_pairs(PAIRS)
    wanted = by_us(engine_of(body), batch)
    mixed = Engine(body, Buffers(CPU), lambda *_: (Keep.INPUT, Keep.ALL, Keep.MIDDLE, Keep.INPUT))
    for engine in (engine_of(body, keep=Keep.MIDDLE), engine_of(body, keep=Keep.INPUT), mixed):
        assert all(torch.equal(a, b) for a, b in zip(by_us(engine, batch), wanted, strict=True))


@pytest.mark.parametrize("keep", list(Keep))
def test_what_lies_in_the_buffers_does_not_matter(keep):
    engine, batch = engine_of(pair_of(), keep=keep), packed_pairs(PAIRS)
    before = by_us(engine, batch)
    for slab in (*engine.buffers._own.slabs, *engine.buffers._slabs["block"].slabs):
        slab.view(torch.float32).fill_(float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(by_us(engine, batch), before, strict=True))


lengths = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 40)), min_size=1, max_size=6)


@settings(max_examples=20, deadline=None)
@given(lengths, st.sampled_from([1, 32, 96]))
def test_pairs_of_any_lengths_never_meet(pairs, grain):
    body, rows = pair_of(), pairs_of(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))
    found, wanted = by_us(engine_of(body, grain=grain), packed_pairs(rows)), by_reference(body, rows)
    assert_near([found[0], together(found[1:])], [wanted[0], together(wanted[1:])])


def together(gradients: list[torch.Tensor]) -> torch.Tensor:
    """One vector of all: with a token or two, single ones are nothing but what cancels out."""
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_without_gradients_the_loss_is_the_same():
    engine, batch = engine_of(pair_of()), packed_pairs(PAIRS)
    with torch.no_grad():
        alone = engine.loss(batch)
    assert not alone.requires_grad
    assert_near([alone], [engine.loss(batch).detach()], within=1e-6)


@pytest.mark.parametrize("keep", list(Keep))
def test_the_bytes_told_are_those_of_the_buffers(keep):
    body, batch = pair_of(), packed_pairs(PAIRS)
    engine = engine_of(body, keep=keep)
    engine.loss(batch)
    rows, sources = (rounded(len(side.input_ids)) for side in (batch.side, batch.encoder))
    held = [0] * 4
    for (buffer, dtype, _), flat in engine.buffers._flat.items():
        number, _, _ = buffer.partition(".")
        if number.isdigit():
            held[int(number)] += flat.numel() * dtype.itemsize
    sizes, is_fused = [sources, sources, rows, rows], runs_on(torch.device("cpu"))
    assert held == [
        kept_bytes(block, keep, rows=size, sources=sources, is_fused=is_fused)
        for block, size in zip(body.all_blocks, sizes, strict=True)
    ]
    assert choose_keeps(body, rows=rows, sources=sources, budget=sum(held), is_fused=is_fused) <= (keep,) * 4
