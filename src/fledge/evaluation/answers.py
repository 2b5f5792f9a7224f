"""Answers to rows of a data set: written once, whatever is measured on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fledge.errors import DataError
from fledge.evaluation.generate import OnAnswers, Sampling, Vocabulary, generate, ignore_answers


class AnsweredRows(Protocol):
    """Tokenised rows that know their prompt and its answer."""

    def __len__(self) -> int: ...
    def prompt_ids(self, index: int) -> Sequence[int]:
        """Ids up to the first trained token; of an encoder-decoder the source."""

    def answer_ids(self, index: int) -> Sequence[int]:
        """The trained ids without the end token; none where the answer was cut."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's prompt, what should follow, and what the model wrote."""

    row: int
    prompt: str
    reference: str
    answer: str


def answer_rows(
    model: Any,
    vocabulary: Vocabulary,
    *,
    store: AnsweredRows,
    sampling: Sampling,
    max_rows: int | None = None,
    max_positions: int | None = None,
    on_answers: OnAnswers = ignore_answers,
) -> tuple[Prediction, ...]:
    """The model's answers to the first `max_rows` rows (all where None), in the order of the rows.

    Rows without a prompt or without a whole answer have nothing to compare and are left out. Raises DataError where
    no row is left, FledgeError as `generate` does.
    """
    count = len(store) if max_rows is None else min(max_rows, len(store))
    rows = [row for row in range(count) if len(store.prompt_ids(row)) and len(store.answer_ids(row))]
    if not rows:
        cure = "write evaluate.exact_match: false and evaluate.rouge: false, or give rows with prompts and answers"
        raise DataError("no row has both a prompt and an answer", cure=cure)
    prompts = [[int(token) for token in store.prompt_ids(row)] for row in rows]
    answers = generate(
        model, vocabulary, prompts=prompts, sampling=sampling, max_positions=max_positions, on_answers=on_answers
    )
    return tuple(
        Prediction(row, vocabulary.decode(prompt), _text(vocabulary, store.answer_ids(row)), answer.text)
        for row, prompt, answer in zip(rows, prompts, answers, strict=True)
    )


def _text(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    return vocabulary.decode([int(token) for token in ids])
