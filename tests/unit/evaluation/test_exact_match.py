"""Exact match counts whole answers that are the reference; rows that have nothing to compare are not answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from transformers import AutoModelForCausalLM

from fledge.errors import DataError
from fledge.evaluation import answers as module
from fledge.evaluation.answers import Prediction, answer_rows
from fledge.evaluation.exact_match import exact_mean, exact_parts, exact_share, is_exact, is_same
from fledge.evaluation.generate import Answer, Sampling, generate
from tests.tiny_models import tiny_folder
from tests.unit.evaluation.test_generate import Letters

FOUR = Sampling(4)
RIGHT = Prediction(0, "q", "a b", "a b", "a b", "a b", is_complete=True, reference_lacks=False)


@dataclass
class Rows:
    pairs: list[tuple[list[int], list[int]]]
    further: dict[int, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    def prompt_ids(self, index: int) -> list[int]:
        return self.pairs[index][0]

    def answer_ids(self, index: int) -> list[int]:
        return self.pairs[index][1]

    def references(self, index: int) -> list[str]:
        return self.further.get(index, [])

    def is_lossy(self, index: int) -> bool:
        return False


@pytest.fixture
def model(tmp_path):
    return AutoModelForCausalLM.from_pretrained(tiny_folder("llama", tmp_path)).eval()


@pytest.fixture
def rows(model):
    """Five rows: two that the model answers rightly, one wrongly, one without prompt, one without answer."""
    prompts = [[5, 9], [7, 8, 9], [100, 4]]
    own = [list(answer.ids) for answer in generate(model, Letters(), prompts=prompts, sampling=FOUR)]
    return Rows([(prompts[0], own[0]), ([], own[0]), (prompts[1], own[1]), (prompts[2], [1, 1]), (prompts[0], [])])


def test_only_rows_that_can_be_compared_are_answered(model, rows):
    found = answer_rows(model, Letters(), store=rows, sampling=FOUR)
    assert [(one.row, is_same(one.answer, one.reference)) for one in found] == [(0, True), (2, True), (3, False)]
    assert found[2].reference == "1,1," and found[2].prompt == "100,4,"


def test_only_the_first_rows_are_asked(model, rows):
    found = answer_rows(model, Letters(), store=rows, sampling=FOUR, max_rows=3)
    assert [one.row for one in found] == [0, 2]


def test_an_answer_that_was_cut_is_not_exact_and_the_same_one_that_ends_is(model, rows):
    cut = answer_rows(model, Letters(), store=rows, sampling=FOUR)
    assert not any(one.is_complete for one in cut) and exact_share(cut) == 0
    prompt, reference = rows.pairs[0]
    (longer,) = generate(model, Letters(), prompts=[prompt], sampling=Sampling(5))
    assert longer.ids[4] not in reference, "or it would end too early"
    (whole,) = answer_rows(
        model, Letters(stop_ids=frozenset(longer.ids[4:])), store=Rows([rows.pairs[0]]), sampling=Sampling(9)
    )
    assert whole.is_complete and is_exact(whole)


def test_an_answer_that_is_one_of_several_references_is_exact_and_the_mean_counts_all(model, rows):
    rows.further = {0: ["something else"], 3: ["9", "8"]}
    found = answer_rows(model, Letters(), store=rows, sampling=FOUR)
    assert [one.others for one in found] == [("something else",), (), ("9", "8")]
    second = replace(RIGHT, reference="x", whole_reference="x", others=("a b", "c"))
    assert exact_parts(second) == [False, True, False]
    assert exact_share([second, RIGHT]) == 1 and exact_mean([second, RIGHT]) == pytest.approx((1 / 3 + 1) / 2)
    assert exact_share([replace(second, is_complete=False)]) == 0


def test_space_around_an_answer_does_not_count():
    assert is_same("  a b\n", "a b") and not is_same("a  b", "a b")
    spaced = replace(RIGHT, answer=" a b\n", whole_answer=" a b\n")
    assert exact_share([spaced, RIGHT, replace(RIGHT, answer="a c", whole_answer="a c")]) == 2 / 3


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "a c", "whole_answer": "a c"},
        {"is_complete": False},
        {"reference_lacks": True},
        {"whole_answer": "a b<no>"},
        {"whole_reference": "<yes>a b"},
        {"whole_reference": "<yes>a b", "whole_answer": "<no>a b"},
    ],
)
def test_whatever_an_answer_lacks_it_is_not_exact(changes):
    assert is_exact(RIGHT) and not is_exact(replace(RIGHT, **changes))


class Special(Letters):
    """A vocabulary whose ids from 300 on are special tokens; 0 is what it cannot write, 2 pads and 3 stops."""

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode([token for token in ids if 3 < token < 300])

    def decode_whole(self, ids: Sequence[int]) -> str:
        return super().decode(ids)


@pytest.mark.parametrize(
    ("reference", "answer", "exact"),
    [
        ([300], [301], False),
        ([300], [300], True),
        ([5, 300, 6], [5, 6], False),
        ([5, 6], [5, 301, 6], False),
        ([5, 2, 3], [5], True),
        ([5, 0], [5, 0], False),
        ([5], [5, 0], False),
    ],
)
def test_special_tokens_tell_answers_apart_but_for_those_that_stop_or_pad(reference, answer, exact, monkeypatch):
    written = Answer(tuple(answer), Special().decode(answer), is_complete=True)
    monkeypatch.setattr(module, "generate", lambda *rest, **more: [written])
    vocabulary = Special(stop_ids=frozenset({3}), unk_token_id=0)
    (found,) = answer_rows(None, vocabulary, store=Rows([([5], reference)]), sampling=FOUR)
    assert is_exact(found) is exact
    assert found.reference_lacks == (0 in reference)


def test_nothing_to_compare_is_an_error(model):
    with pytest.raises(DataError, match="both a prompt and an answer"):
        answer_rows(model, Letters(), store=Rows([([], [5])]), sampling=FOUR)
