"""Exact match counts answers that are the reference; rows that have nothing to compare are not answered."""

from dataclasses import dataclass

import pytest
from transformers import AutoModelForCausalLM

from fledge.errors import DataError
from fledge.evaluation.answers import answer_rows
from fledge.evaluation.exact_match import exact_share, is_exact
from fledge.evaluation.generate import Sampling, generate
from tests.tiny_models import tiny_folder
from tests.unit.evaluation.test_generate import Letters

FOUR = Sampling(4)


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
    own = [list(answer.ids) for answer in generate(model, Letters(), prompts=prompts, sampling=FOUR)]
    return Rows([(prompts[0], own[0]), ([], own[0]), (prompts[1], own[1]), (prompts[2], [1, 1]), (prompts[0], [])])


def test_the_share_is_of_rows_that_can_be_compared(model, rows):
    found = answer_rows(model, Letters(), store=rows, sampling=FOUR)
    assert [(one.row, is_exact(one.answer, one.reference)) for one in found] == [(0, True), (2, True), (3, False)]
    assert exact_share([one.answer for one in found], [one.reference for one in found]) == 2 / 3
    assert found[2].reference == "1,1," and found[2].prompt == "100,4,"


def test_only_the_first_rows_are_asked(model, rows):
    found = answer_rows(model, Letters(), store=rows, sampling=FOUR, max_rows=3)
    assert [one.row for one in found] == [0, 2]


def test_space_around_an_answer_does_not_count():
    assert is_exact("  a b\n", "a b") and not is_exact("a  b", "a b")
    assert exact_share(["a ", "b", "c"], ["a", "b", "d"]) == 2 / 3


def test_nothing_to_compare_is_an_error(model):
    with pytest.raises(DataError, match="both a prompt and an answer"):
        answer_rows(model, Letters(), store=Rows([([], [5])]), sampling=FOUR)
