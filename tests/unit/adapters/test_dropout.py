"""Keyed dropout: a row's mask does not depend on the batch that it is computed in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.adapters.dropout import DropoutKeys, KeyedDropout
from fledge.models.checkpointing import checkpointed_blocks
from fledge.models.documents import documents_apart
from tests.unit.adapters.builders import adapted, base_of, move

FEATURES = 16


def layer(keys: DropoutKeys, *, p: float = 0.3, name: str = "layer") -> KeyedDropout:
    return KeyedDropout(p, name=name, keys=keys).train()


def mask_of(row: int, length: int, *, step: int = 1, seed: int = 5, name: str = "layer") -> torch.Tensor:
    """The mask of one row alone. [length, FEATURES]"""
    keys = DropoutKeys(seed, step, (row,), (length,), is_packed=True)
    return layer(keys, name=name)(torch.ones(1, length, FEATURES))[0]


documents = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 9)), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(documents)
def test_packed_padded_and_single_rows_have_the_same_masks(chosen):
    rows, lengths = zip(*chosen, strict=True)
    packed = layer(DropoutKeys(5, 1, rows, lengths, is_packed=True))(torch.ones(1, sum(lengths), FEATURES))[0]
    padded = layer(DropoutKeys(5, 1, rows, lengths))(torch.ones(len(rows), max(lengths) + 2, FEATURES))
    parts = packed.split(lengths)
    assert len(parts) == len(chosen)
    for place, (row, length) in enumerate(chosen):
        alone = mask_of(row, length)
        assert torch.equal(parts[place], alone)
        assert torch.equal(padded[place, :length], alone)


def test_every_part_of_the_key_changes_the_mask():
    masks = [mask_of(1, 40), mask_of(2, 40), mask_of(1, 40, step=2), mask_of(1, 40, seed=6), mask_of(1, 40, name="b")]
    assert len({mask.numpy().tobytes() for mask in masks}) == 5


def test_the_share_dropped_is_p_and_the_rest_keeps_the_mean():
    mask = torch.cat([mask_of(row, 100) for row in range(50)])
    assert (mask == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert mask.mean().item() == pytest.approx(1.0, abs=0.02)
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}


def test_nothing_is_dropped_outside_training_and_with_p_zero():
    keys, x = DropoutKeys(5, 1, (0,), (4,), is_packed=True), torch.ones(1, 4, FEATURES)
    assert layer(keys).eval()(x) is x
    assert layer(keys, p=0.0)(x) is x


def test_dropped_gradients_are_the_same_packed_alone_and_computed_again(tmp_path):
    base = base_of("llama", tmp_path)
    trained = move(adapted(base, lora_dropout=0.4))
    for module in trained.model.modules():
        if isinstance(module, KeyedDropout):
            module.train()
    ids = [torch.tensor([[5, 9, 33, 210]]), torch.tensor([[7, 8]])]

    def gradients(texts: list[torch.Tensor], rows: tuple[int, ...], *, is_checkpointed: bool) -> list[torch.Tensor]:
        keys, lengths = trained.dropout, tuple(text.shape[1] for text in texts)
        keys.step, keys.rows, keys.lengths, keys.is_packed = 3, rows, lengths, True
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        with documents_apart(base.model) as apart, checkpointed_blocks(base.model, is_on=is_checkpointed):
            apart.lengths = lengths
            logits = trained.model(input_ids=torch.cat(texts, dim=1), position_ids=positions, use_cache=False).logits
            return list(torch.autograd.grad(logits.square().sum(), parameters))

    parameters = [parameter for parameter in trained.model.parameters() if parameter.requires_grad]
    packed = gradients(ids, (70, 71), is_checkpointed=False)
    again = gradients(ids, (70, 71), is_checkpointed=True)
    other = gradients(ids, (70, 72), is_checkpointed=False)
    first = gradients(ids[:1], (70,), is_checkpointed=False)
    second = gradients(ids[1:], (71,), is_checkpointed=False)
    alone = [a + b for a, b in zip(first, second, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(packed, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(packed, other, strict=True))
    for together, apart in zip(packed, alone, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4 * apart.abs().max().item())
