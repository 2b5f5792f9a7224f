"""Exact answers: how often an answer is the reference, letter for letter, and known to be whole."""

from collections.abc import Sequence
from statistics import fmean

from fledge.evaluation.answers import Prediction


def is_same(answer: str, reference: str) -> bool:
    """Whether answer and reference are the same text, space around them left aside."""
    return answer.strip() == reference.strip()


def is_exact(one: Prediction) -> bool:
    """Whether an answer is its reference: the same text, with special tokens and without, and nothing after it.

    An answer that was cut has not shown that it ends, so it is not exact, even where its text is the reference so far:
    who uses the model would read on. A reference that lacks characters, for the tokenizer cannot write them, is no
    answer that anybody wants; nothing is exact there.
    """
    is_equal = is_same(one.answer, one.reference) and is_same(one.whole_answer, one.whole_reference)
    return is_equal and one.is_complete and not one.reference_lacks


def exact_parts(one: Prediction) -> list[bool]:
    """For each reference of a row, whether the answer is exactly that one."""
    return [is_exact(one), *(one.is_complete and is_same(one.whole_answer, text) for text in one.others)]


def exact_share(predictions: Sequence[Prediction]) -> float:
    """Share (0 to 1) of the answers, at least one, that are exactly one of their references."""
    return sum(any(exact_parts(one)) for one in predictions) / len(predictions)


def exact_mean(predictions: Sequence[Prediction]) -> float:
    """The mean over rows of the share of a row's references that the answer is exactly."""
    return fmean(fmean(exact_parts(one)) for one in predictions)
