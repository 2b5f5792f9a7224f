"""Before a training: each way in which the engine's rows could see each other is planted, and found."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fledge.engine import run
from fledge.engine.packed import Packed
from fledge.ops.plan import Document, plan_attention
from tests.numbers.alone_models import found_by_engine, named
from tests.tiny_models import ARCHITECTURES, PAIRS

LATE, SLIGHT = 40, 1e-3
"""Of 61 tokens, which the longest row has; what shows in float32 alone."""
WINDOWED = ("mistral", "gemma2")
ALIBI = ("bloom", "falcon-rw")
"""Where a row's keys all lie one further on, their scores differ by a constant, so nothing changes."""
SEVERAL = ("bloom", "gemma2", "gpt2", "llama")
FAR_SEEING = sorted({*ARCHITECTURES} - {"mistral"})
"""With two windows of six tokens nothing at position 40 depends on what comes before the row."""
ROTARY_OR_TABLE = sorted({*ARCHITECTURES} - {*ALIBI})
FOUND = "packed into one micro-batch differ"
Leak = Callable[[Any, Packed], torch.Tensor]
"""An engine and a micro-batch -> [M,H] states that are wrong."""


@dataclass
class Wrapped:
    """An engine whose hidden states are computed otherwise."""

    engine: Any
    states: Any

    @property
    def body(self) -> Any:
        return self.engine.body


def leaking(leak: Leak, *, weight: float = 1.0, start: int = 0) -> Callable[[Any], Any]:
    """What spoils an engine: from position `start` of each row on its states are by `weight` those of `leak`."""

    def spoil(engine: Any) -> Any:
        def states(batch: Packed) -> torch.Tensor:
            right = engine.states(batch).clone()
            share = weight * (batch.side.position_ids[batch.sources] >= start).to(right.dtype)
            return right + share[:, None] * (leak(engine, batch) - right)

        return Wrapped(engine, states)

    return spoil


def as_one_row(engine: Any, batch: Packed) -> torch.Tensor:
    """Each row sees those before it."""
    whole = Document(0, batch.side.documents[-1].end)
    side = replace(batch.side, documents=(whole,))
    if batch.encoder is None:
        return engine.states(replace(batch, side=side))
    sources = replace(batch.encoder, documents=(Document(0, batch.encoder.documents[-1].end),))
    return engine.states(replace(batch, side=side, encoder=sources))


def one_further_on(engine: Any, batch: Packed) -> torch.Tensor:
    """Positions from the fourth on are counted wrong by one; a row of relative ones is the same where all are."""
    positions = batch.side.position_ids + (batch.side.position_ids >= 3)
    return engine.states(replace(batch, side=replace(batch.side, position_ids=positions)))


def from_row_to_row(engine: Any, batch: Packed) -> torch.Tensor:
    """A row begins with the state that the row before it ended with."""
    right = engine.states(batch).clone()
    rows = [(batch.sources >= part.start) & (batch.sources < part.end) for part in batch.side.documents]
    ends = [right[row][-1] for row in rows]
    for row, end in zip(rows[1:], ends, strict=False):
        right[row] += end
    return right


def without_window(engine: Any, *, blocks: slice = slice(None)) -> Any:
    """The engine, of which some blocks see all that is before a position."""
    kept = list(engine.body.blocks)
    kept[blocks] = [
        replace(block, attention=replace(block.attention, shape=replace(block.attention.shape, window=None)))
        for block in kept[blocks]
    ]
    return replace(engine, body=replace(engine.body, blocks=tuple(kept)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_neighbour_seen_is_found(name, dtype, tmp_path):
    assert FOUND in found_by_engine(named(name, tmp_path, dtype), leaking(as_one_row))


@pytest.mark.parametrize("name", FAR_SEEING)
@pytest.mark.parametrize("how", [{"weight": SLIGHT}, {"start": LATE}, {"weight": SLIGHT, "start": LATE}])
def test_a_neighbour_seen_slightly_or_late_is_found(name, how, tmp_path):
    assert FOUND in found_by_engine(named(name, tmp_path), leaking(as_one_row, **how))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_neighbour_seen_by_one_layer_is_found(name, number, tmp_path, monkeypatch):
    right, model = run.forward, named(name, tmp_path)

    def forward(block: Any, x: torch.Tensor, *, flow: Any, **rest: Any) -> Any:
        if number_of[id(block)] == number:
            heads = block.attention.shape.kv_heads * block.attention.shape.groups
            flow = replace(flow, plan=plan_attention((Document(0, x.shape[0]),), heads=heads))
        return right(block, x, flow=flow, **rest)

    number_of: dict[int, int] = {}

    def noting(engine: Any) -> Any:
        number_of.update((id(block), place) for place, block in enumerate(engine.body.blocks))
        return engine

    monkeypatch.setattr(run, "forward", forward)
    assert FOUND in found_by_engine(model, noting)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_lost_is_found(name, dtype, tmp_path):
    assert FOUND in found_by_engine(named(name, tmp_path, dtype), without_window)


@pytest.mark.parametrize("blocks", [slice(0, 1), slice(1, 2)])
def test_a_window_lost_in_one_layer_is_found(blocks, tmp_path):
    assert FOUND in found_by_engine(named("mistral", tmp_path), lambda engine: without_window(engine, blocks=blocks))


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("how", [{"weight": SLIGHT}, {"start": LATE}])
def test_a_window_lost_slightly_or_late_is_found(name, how, tmp_path):
    def leak(engine: Any, batch: Packed) -> torch.Tensor:
        return without_window(engine).states(batch)

    assert FOUND in found_by_engine(named(name, tmp_path), leaking(leak, **how))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ROTARY_OR_TABLE)
def test_a_position_shifted_by_one_is_found(name, dtype, tmp_path):
    assert FOUND in found_by_engine(named(name, tmp_path, dtype), leaking(one_further_on))


@pytest.mark.parametrize("name", sorted({*ROTARY_OR_TABLE} & {*FAR_SEEING}))
@pytest.mark.parametrize("how", [{"weight": SLIGHT}, {"start": LATE}])
def test_a_position_shifted_slightly_or_late_is_found(name, how, tmp_path):
    assert FOUND in found_by_engine(named(name, tmp_path), leaking(one_further_on, **how))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("how", [{}, {"weight": SLIGHT}, {"start": LATE}])
def test_a_state_carried_from_row_to_row_is_found(name, how, tmp_path):
    assert FOUND in found_by_engine(named(name, tmp_path), leaking(from_row_to_row, **how))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("how", [{}, {"weight": SLIGHT}, {"start": LATE}])
def test_a_state_carried_from_micro_batch_to_micro_batch_is_found(name, how, tmp_path):
    seen: list[torch.Tensor] = []

    def leak(engine: Any, batch: Packed) -> torch.Tensor:
        right = engine.states(batch).clone()
        seen.append(right[-1])
        return right if len(seen) == 1 else right + seen[-2]

    assert FOUND in found_by_engine(named(name, tmp_path), leaking(leak, **how))


@pytest.mark.parametrize("name", PAIRS[:1])
@pytest.mark.parametrize("leak", [as_one_row, from_row_to_row])
@pytest.mark.parametrize("weight", [1.0, SLIGHT])
def test_the_same_is_found_in_pairs(name, leak, weight, tmp_path):
    assert FOUND in found_by_engine(named(name, tmp_path), leaking(leak, weight=weight))
