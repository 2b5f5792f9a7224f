"""Exact answers: how often a greedy answer is the reference, letter for letter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fledge.errors import DataError
from fledge.evaluation.generate import Answer, Sampling, Vocabulary, generate


class AnsweredRows(Protocol):
    """Tokenised rows that know their prompt and its answer."""

    def __len__(self) -> int: ...
    def prompt_ids(self, index: int) -> Sequence[int]:
        """Ids up to the first trained token."""

    def answer_ids(self, index: int) -> Sequence[int]:
        """The trained ids without the end token."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's prompt, what should follow, and what the model wrote."""

    row: int
    prompt: str
    reference: str
    answer: Answer

    @property
    def is_exact(self) -> bool:
        """Whether answer and reference are the same text, space around them left aside."""
        return self.answer.text.strip() == self.reference.strip()


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """Share (0 to 1) of `rows` whose greedy answer is exactly the reference."""

    share: float
    rows: int
    predictions: tuple[Prediction, ...]


def exact_match(
    model: Any,
    vocabulary: Vocabulary,
    *,
    store: AnsweredRows,
    max_new_tokens: int,
    max_rows: int | None = None,
    max_positions: int | None = None,
) -> ExactMatch:
    """Greedy answers to the first `max_rows` rows (all where None), compared with what the rows say.

    Rows without a prompt or without an answer have nothing to compare and are not counted. Raises DataError where no
    row is left.
    """
    count = len(store) if max_rows is None else min(max_rows, len(store))
    rows = [row for row in range(count) if len(store.prompt_ids(row)) and len(store.answer_ids(row))]
    if not rows:
        raise DataError("no row has both a prompt and an answer", cure="exact match is for prompts with answers")
    prompts = [[int(token) for token in store.prompt_ids(row)] for row in rows]
    answers = generate(
        model, vocabulary, prompts=prompts, sampling=Sampling(max_new_tokens), max_positions=max_positions
    )
    predictions = tuple(
        Prediction(row, vocabulary.decode(prompt), _text(vocabulary, store.answer_ids(row)), answer)
        for row, prompt, answer in zip(rows, prompts, answers, strict=True)
    )
    exact = sum(prediction.is_exact for prediction in predictions)
    return ExactMatch(exact / len(rows), len(rows), predictions)


def _text(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    return vocabulary.decode([int(token) for token in ids])
