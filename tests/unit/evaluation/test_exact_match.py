"""Exact match counts greedy answers that are the reference, and only rows that have something to compare."""

from dataclasses import dataclass

import pytest
from transformers import AutoModelForCausalLM

from fledge.errors import DataError
from fledge.evaluation.exact_match import exact_match
from fledge.evaluation.generate import Sampling, generate
from tests.tiny_models import tiny_folder
from tests.unit.evaluation.test_generate import Letters


@dataclass
class Rows:
    pairs: list[tuple[list[int], list[int]]]

    def __len__(self) -> int:
        return len(self.pairs)

    def prompt_ids(self, index: int) -> list[int]:
        return self.pairs[index][0]

    def answer_ids(self, index: int) -> list[int]:
        return self.pairs[index][1]


@pytest.fixture
def model(tmp_path):
    return AutoModelForCausalLM.from_pretrained(tiny_folder("llama", tmp_path)).eval()


@pytest.fixture
def rows(model):
    """Five rows: two that the model answers rightly, one wrongly, one without prompt, one without answer."""
    prompts = [[5, 9], [7, 8, 9], [100, 4]]
    own = [list(answer.ids) for answer in generate(model, Letters(), prompts=prompts, sampling=Sampling(4))]
    return Rows([(prompts[0], own[0]), ([], own[0]), (prompts[1], own[1]), (prompts[2], [1, 1]), (prompts[0], [])])


def test_the_share_is_of_rows_that_can_be_compared(model, rows):
    found = exact_match(model, Letters(), store=rows, max_new_tokens=4)
    assert (found.share, found.rows) == (2 / 3, 3)
    assert [(one.row, one.is_exact) for one in found.predictions] == [(0, True), (2, True), (3, False)]
    assert found.predictions[2].reference == "1,1," and found.predictions[2].prompt == "100,4,"


def test_only_the_first_rows_are_asked(model, rows):
    found = exact_match(model, Letters(), store=rows, max_new_tokens=4, max_rows=3)
    assert (found.share, found.rows) == (1.0, 2)


def test_space_around_an_answer_does_not_count(model, rows):
    class Spaced(Letters):
        def decode(self, ids):
            return f"  {super().decode(ids)}\n" if len(ids) == 4 else super().decode(ids)

    assert exact_match(model, Spaced(), store=rows, max_new_tokens=4).share == 2 / 3


def test_nothing_to_compare_is_an_error(model, rows):
    with pytest.raises(DataError, match="both a prompt and an answer"):
        exact_match(model, Letters(), store=Rows([([], [5])]), max_new_tokens=4)
