"""Before a training: each way in which rows computed together could see each other is planted, and found."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from fledge.commands.layout import choose_layout
from fledge.commands.library_loss import plain_loss
from fledge.data.rows import Batch
from fledge.engine.packed import Packed
from fledge.errors import ModelError
from fledge.models import documents
from fledge.models.blocks import blocks
from tests.numbers.alone_models import found_by_engine, found_in, named, packed_by_library, recipe, some_rows, trials_of


@contextlib.contextmanager
def planted(what: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fault in how the library's modules compute packed rows."""
    with monkeypatch.context() as patch:
        if what == "neighbour":
            patch.setattr(documents.Documents, "spans", lambda self, width: [(0, width)])
        if what == "window":
            patch.setattr(documents.DocumentMask, "within", lambda *_, **__: None)
        if what == "wider window":
            right_within = documents.DocumentMask.within
            patch.setattr(documents.DocumentMask, "within", functools.partialmethod(_wider, right_within))
        yield


def _wider(mask: Any, right: Any, start: int, end: int, *, device: torch.device) -> torch.Tensor | None:
    found = right(mask, start, end, device=device)
    return None if found is None else found | found.roll(-1, dims=-1).tril()


@pytest.mark.parametrize("what", ["neighbour", "window", "wider window"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_neighbour_seen_and_a_window_lost_are_found(what, dtype, tmp_path, monkeypatch):
    model = named("llama" if what == "neighbour" else "mistral", tmp_path, dtype)
    facts, _ = trials_of(model)
    with planted(what, monkeypatch):
        assert "packed into one micro-batch differ" in found_in(
            model, functools.partial(packed_by_library, model, facts)
        )


def shifted(batch: Batch, *, start: int) -> Batch:
    """The batch with the positions of each document one further from `start` on."""
    return replace(batch, position_ids=batch.position_ids + (batch.position_ids >= start))


@pytest.mark.parametrize(("name", "start"), [("gpt2", 0), ("llama", 2), ("llama", 40)])
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_position_shifted_by_one_is_found(name, start, is_packed, tmp_path):
    """Rotary positions are relative: of these one in the middle of a row is shifted."""
    model = named(name, tmp_path)
    facts, _ = trials_of(model)
    right = packed_by_library if is_packed else lambda m, f, batch: plain_loss(f, None).logits(m, batch)
    assert "differ from each alone" in found_in(
        model, lambda batch: right(model, facts, shifted(batch, start=start)), is_packed=is_packed
    )


def test_a_state_carried_over_is_found_and_refused(tmp_path):
    model, seen = named("llama", tmp_path), []
    block = blocks(model.get_base_model())[0]

    def carry(_: Any, given: Any, out: torch.Tensor) -> torch.Tensor:
        seen.append(out.detach().mean())
        return out + 0.1 * sum(seen[:-1], torch.zeros(()))

    block.register_forward_hook(carry)
    facts, trials = trials_of(model)
    with pytest.raises(ModelError, match="depends on the rows before it"):
        choose_layout(recipe(), model, facts=facts, trials=trials)


def without_window(engine: Any) -> Any:
    blocks = [
        replace(block, attention=replace(block.attention, shape=replace(block.attention.shape, window=None)))
        for block in engine.body.blocks
    ]
    return replace(engine, body=replace(engine.body, blocks=tuple(blocks)))


def as_one_document(engine: Any) -> Any:
    def states(batch: Packed) -> torch.Tensor:
        whole = replace(batch.side.documents[0], end=batch.side.documents[-1].end)
        return engine.states(replace(batch, side=replace(batch.side, documents=(whole,))))

    return _Wrapped(engine, states)


def one_further_on(engine: Any) -> Any:
    def states(batch: Packed) -> torch.Tensor:
        positions = batch.side.position_ids + (batch.side.position_ids >= 3)
        return engine.states(replace(batch, side=replace(batch.side, position_ids=positions)))

    return _Wrapped(engine, states)


@pytest.mark.parametrize("spoil", [without_window, as_one_document, one_further_on])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_faults_are_found_in_the_engine(spoil, dtype, tmp_path):
    assert "packed into one micro-batch differ" in found_by_engine(named("mistral", tmp_path, dtype), spoil)


@dataclass
class _Wrapped:
    """An engine whose hidden states are computed otherwise."""

    engine: Any
    states: Any

    @property
    def body(self) -> Any:
        return self.engine.body


def test_a_row_that_gives_no_numbers_hides_no_fault_of_the_others(tmp_path, monkeypatch):
    model = named("llama", tmp_path)
    rows = some_rows().rows
    rare = np.setdiff1d(rows[1].input_ids, np.concatenate([row.input_ids for row in (rows[0], *rows[2:])]))[0]
    model.get_base_model().get_input_embeddings().weight.data[rare] = torch.nan
    facts, _ = trials_of(model)
    packed = functools.partial(packed_by_library, model, facts)
    assert found_in(model, packed) == ""
    with planted("neighbour", monkeypatch):
        assert "packed into one micro-batch differ" in found_in(model, packed)
