"""The proof before a training on a base where rounding alone moves the gradients by percents."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from fledge.commands import proof
from fledge.commands.engine import build_engine, text_of
from fledge.commands.proof import TILES, pair_disagreement
from fledge.commands.rounding import off_by_rounding
from fledge.data.rows import Row
from tests.unit.evaluation.pairs import tiny_t5
from tests.ways import each_way

__all__ = ["each_way"]
CPU = torch.device("cpu")


def magnifying(seed):
    """Attention's scores are so large that a few last bits choose who is looked at."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return get_peft_model(tiny_t5(seed=seed), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))


@pytest.mark.parametrize("seed", [2, 5])
def test_the_engine_may_lie_as_far_from_the_library_as_rounding_moves_it(seed, monkeypatch):
    model = magnifying(seed)
    assert pair_disagreement(build_engine(model, device=CPU, rows=0), model, lengths=TILES) is None
    monkeypatch.setattr(proof, "MOST", 0.0)
    told = pair_disagreement(build_engine(model, device=CPU, rows=0), model, lengths=TILES)
    assert told is not None and "gradients differ" in told


@pytest.mark.parametrize("seed", [2, 5])
def test_a_wrong_body_is_found_there_too(seed):
    model = magnifying(seed)
    engine = build_engine(model, device=CPU, rows=0)
    first, *others = engine.body.blocks
    down = first.mlp.down
    spoilt = replace(first, mlp=replace(first.mlp, down=replace(down, weight=down.weight * 1.3)))
    engine.body = replace(engine.body, blocks=(spoilt, *others))
    assert "differ" in (pair_disagreement(engine, model, lengths=TILES) or "")


def test_what_was_off_is_as_before_afterwards():
    model = magnifying(2)
    ids = torch.arange(9)[None]
    before = model(input_ids=ids, decoder_input_ids=ids).logits
    with off_by_rounding(model, seed=0):
        within = model(input_ids=ids, decoder_input_ids=ids).logits
    assert torch.equal(model(input_ids=ids, decoder_input_ids=ids).logits, before)
    assert 0 < (within - before).norm() < 0.1 * before.norm()


def test_rows_are_made_of_the_training_text_and_of_drawn_ids_where_it_is_too_short():
    model, text = magnifying(2), torch.arange(3, 10)
    first, second = (proof._draw(model, (4, 6), text, number=number) for number in (0, 1))
    assert torch.equal(first[0], text[:4]) and torch.equal(first[1][:3], text[4:])
    assert [len(row) for row in second] == [4, 6]
    assert not torch.equal(torch.cat(first), torch.cat(second))
    again = proof._draw(model, (4, 6), text, number=0)
    assert torch.equal(torch.cat(first), torch.cat(again))


@pytest.mark.parametrize(
    ("outcomes", "tried", "told"),
    [([None], 1, None), (["a", None], 2, None), (["a", "b", None], 3, None), (["a", "b", "c"], 3, "a")],
)
def test_one_set_of_rows_that_agrees_is_enough_and_three_are_tried(outcomes, tried, told):
    asked = []

    def attempt(number):
        asked.append(number)
        return outcomes[number]

    assert proof._decided(attempt) == told
    assert asked == list(range(tried))


class Rows:
    """As a store gives them: row i is (i, i)."""

    def __len__(self):
        return 1000

    def row(self, index):
        return Row(np.full(2, index, dtype=np.int32), np.ones(2, dtype=bool))


def test_text_for_the_proof_is_taken_evenly_from_all_rows():
    text = text_of(Rows())
    assert len(text) == 512 and text[0] == 0 and text[-1] > 990
    assert text.diff()[1::2].max() <= 4
