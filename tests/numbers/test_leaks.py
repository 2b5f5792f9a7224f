"""Before a training: each way in which rows computed together could see each other is planted, and found."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fledge.commands.layout import choose_layout
from fledge.commands.library_loss import plain_loss
from fledge.data.rows import Batch
from fledge.errors import ModelError
from fledge.models import documents
from fledge.models.blocks import blocks
from tests.numbers.alone_models import found_in, named, packed_by_library, recipe, small_model, some_rows, trials_of
from tests.tiny_models import ARCHITECTURES, PAIRS


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


@pytest.mark.parametrize(
    ("what", "name"),
    [*(("neighbour", name) for name in ARCHITECTURES if name != "mistral")]
    + [(what, name) for what in ("window", "wider window") for name in ("mistral", "gemma2")],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_neighbour_seen_and_a_window_lost_are_found(what, name, dtype, tmp_path, monkeypatch):
    """Where each layer has a window the library's own masks keep neighbours apart too."""
    model = named(name, tmp_path, dtype)
    facts, _ = trials_of(model)
    with planted(what, monkeypatch):
        assert "packed into one micro-batch differ" in found_in(
            model, functools.partial(packed_by_library, model, facts)
        )


LATE, SLIGHT = 40, 1e-3
"""Of 61 tokens, which the longest row has; what shows in float32 alone."""
HOWS = ({}, {"weight": SLIGHT}, {"start": LATE}, {"weight": SLIGHT, "start": LATE})
PLACES = [(how, layers) for how in HOWS for layers in ((0, 1), (0,), (1,)) if layers != (1,) or "start" not in how]
"""On long rows the first layer stands for the second one, whose code and settings are its own."""
SEVERAL = ("bloom", "gemma2", "gpt2", "llama")
COUNTING = ("falcon-7b", "gemma2", "gpt2", "llama", "phi")
"""ALiBi reads no positions."""
WITH_STATES = ("mamba", "jamba", "qwen3_next", "recurrent_gemma", "lfm2")
FOUND = "into one micro-batch differ from each alone"
Leak = Callable[[Callable[[], torch.Tensor], torch.Tensor, Sequence[int]], torch.Tensor]
"""What computes a block again, the hidden states that it gives [B,T,H] and the lengths of packed rows -> wrong ones."""


def spoil(model: Any, leak: Leak, *, layers: Sequence[int], weight: float = 1.0, start: int = 0) -> None:
    """From position `start` of each row on, some blocks give by `weight` what `leak` says, where rows are together."""
    found = blocks(model.get_base_model())
    for block in (found[number] for number in layers):
        block.forward = functools.partial(_spoilt, block, block.forward, leak, weight, start)


def _spoilt(
    block: Any, inner: Callable[..., Any], leak: Leak, weight: float, start: int, /, *given: Any, **named: Any
) -> Any:
    out = inner(*given, **named)
    right = out[0] if isinstance(out, tuple) else out
    apart = [module.fledge_documents for module in block.modules() if hasattr(module, "fledge_documents")]
    lengths = (apart[0].lengths or ()) if apart else ()
    if right.shape[0] == 1 and len(lengths) < 2:
        return out

    def again() -> torch.Tensor:
        wrong = inner(*given, **named)
        return wrong[0] if isinstance(wrong, tuple) else wrong

    places = torch.cat([torch.arange(length) for length in lengths or right.shape[1:2]])
    share = weight * (places >= start).to(right.dtype)[:, None]
    wrong = right + share * (leak(again, right, lengths) - right)
    return (wrong, *out[1:]) if isinstance(out, tuple) else wrong


def to_neighbour(again: Callable[[], torch.Tensor], right: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Each packed row sees those before it; of padded rows each gets what is the next one's."""
    if not lengths:
        return right.roll(1, dims=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents.Documents, "spans", lambda self, width: [(0, width)])
        patch.setattr(documents.DocumentMask, "within", lambda *_, **__: None)
        return again()


def without_window(again: Callable[[], torch.Tensor], right: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Each position sees all that is before it in its row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents.DocumentMask, "within", lambda *_, **__: None)
        return again()


def from_row_to_row(again: Callable[[], torch.Tensor], right: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """A row begins with the state that the row before it ended with."""
    if not lengths:
        return right + right.mean(dim=1, keepdim=True).roll(1, dims=0)
    before = [torch.zeros_like(right[:, -1:])]
    before += [right[:, end - 1 : end] for end in itertools.accumulate(lengths[:-1])]
    return right + torch.cat([state.expand(-1, n, -1) for state, n in zip(before, lengths, strict=True)], dim=1)


def from_batch_to_batch() -> Leak:
    """A micro-batch begins with the state that the micro-batch before it ended with."""
    seen: list[torch.Tensor] = []

    def leak(again: Callable[[], torch.Tensor], right: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        seen.append(right.mean(dim=(0, 1)))
        return right if len(seen) == 1 else right + seen[-2]

    return leak


def found_in_library(model: Any, *, is_packed: bool) -> str:
    facts, _ = trials_of(model)
    if is_packed:
        return found_in(model, functools.partial(packed_by_library, model, facts))
    return found_in(model, functools.partial(plain_loss(facts, None).logits, model), is_packed=False)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize(("how", "layers"), PLACES)
def test_a_neighbour_seen_is_found_in_packed_rows(name, layers, how, tmp_path):
    model = named(name, tmp_path)
    spoil(model, to_neighbour, layers=layers, **how)
    assert FOUND in found_in_library(model, is_packed=True)


@pytest.mark.parametrize("name", [*SEVERAL, *PAIRS])
@pytest.mark.parametrize(("how", "layers"), [place for place in PLACES if "start" not in place[0]])
def test_a_neighbour_seen_is_found_in_padded_rows(name, layers, how, tmp_path):
    model = named(name, tmp_path)
    spoil(model, to_neighbour, layers=layers, **how)
    assert FOUND in found_in_library(model, is_packed=False)


@pytest.mark.parametrize("kind", WITH_STATES)
@pytest.mark.parametrize("leak", [to_neighbour, from_row_to_row, from_batch_to_batch()])
@pytest.mark.parametrize("how", HOWS)
def test_leaks_are_found_in_padded_rows_of_kinds_with_states(kind, leak, how):
    model = small_model(kind)
    spoil(model, leak, layers=(0,), **how)
    assert FOUND in found_in_library(model, is_packed=False)


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
@pytest.mark.parametrize(("how", "layers"), PLACES)
def test_a_window_lost_is_found(name, layers, how, tmp_path):
    if name == "gemma2" and layers == (1,):
        pytest.skip("its second layer has no window")
    model = named(name, tmp_path)
    spoil(model, without_window, layers=layers, **how)
    assert FOUND in found_in_library(model, is_packed=True)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize(("how", "layers"), PLACES)
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_state_carried_over_within_or_between_micro_batches_is_found(name, layers, how, is_packed, tmp_path):
    for leak in (from_row_to_row, from_batch_to_batch()):
        model = named(name, tmp_path)
        spoil(model, leak, layers=layers, **how)
        assert FOUND in found_in_library(model, is_packed=is_packed)


def shifted(batch: Batch, *, start: int) -> Batch:
    """The batch with the positions of each document one further from `start` on."""
    return replace(batch, position_ids=batch.position_ids + (batch.position_ids >= start))


@pytest.mark.parametrize("name", COUNTING)
@pytest.mark.parametrize("start", [2, LATE])
@pytest.mark.parametrize("weight", [1.0, SLIGHT])
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_position_shifted_by_one_is_found(name, start, weight, is_packed, tmp_path):
    """Rotary positions are relative: of these one in the middle of a row is shifted."""
    model = named(name, tmp_path)
    facts, _ = trials_of(model)
    right = packed_by_library if is_packed else lambda m, f, batch: plain_loss(f, None).logits(m, batch)

    def logits(batch: Batch) -> torch.Tensor:
        found = right(model, facts, batch)
        return found + weight * (right(model, facts, shifted(batch, start=start)) - found)

    assert FOUND in found_in(model, logits, is_packed=is_packed)


def test_a_table_of_positions_that_begins_one_further_on_is_found(tmp_path):
    model = named("gpt2", tmp_path)
    facts, _ = trials_of(model)
    assert FOUND in found_in(model, lambda batch: packed_by_library(model, facts, shifted(batch, start=0)))


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "bloom"])
def test_a_state_carried_over_by_single_rows_is_found_and_refused(name, tmp_path):
    model, seen = named(name, tmp_path), []
    block = blocks(model.get_base_model())[0]

    def carry(_: Any, given: Any, out: Any) -> Any:
        hidden = out[0] if isinstance(out, tuple) else out
        seen.append(hidden.detach().mean())
        hidden = hidden + SLIGHT * sum(seen[:-1], torch.zeros(()))
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    block.register_forward_hook(carry)
    facts, trials = trials_of(model)
    with pytest.raises(ModelError, match="depends on the rows before it"):
        choose_layout(recipe(), model, facts=facts, trials=trials)


@pytest.mark.parametrize("leak", [to_neighbour, from_row_to_row])
def test_a_late_and_slight_leak_is_found_where_few_positions_can_be_looked_at(leak, tmp_path, monkeypatch):
    """As on a large vocabulary, where logits of all positions would be too many."""
    monkeypatch.setattr("fledge.commands.alone.MOST_LOGITS", 0)
    model = named("llama", tmp_path)
    spoil(model, leak, layers=(0,), weight=SLIGHT, start=LATE)
    assert FOUND in found_in_library(model, is_packed=True)


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
