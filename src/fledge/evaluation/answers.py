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

    def references(self, index: int) -> Sequence[str]:
        """Further right answers, as text."""

    def is_lossy(self, index: int) -> bool:
        """Whether the ids of the answer are not its text, because the tokenizer lacks characters of it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's prompt, what should follow, and what the model wrote, special tokens left out.

    `whole_reference` and `whole_answer` have them, all but those that end an answer or pad: tokens that a recipe adds
    are among them, and a text without them does not tell one from the other.
    """

    row: int
    prompt: str
    reference: str
    answer: str
    whole_reference: str
    whole_answer: str
    is_complete: bool
    """Whether a stop token ended the answer; it was cut otherwise."""
    reference_lacks: bool
    """Whether the reference has characters that the tokenizer cannot write."""
    others: tuple[str, ...] = ()
    """Further references, as the row has them."""

    @property
    def references(self) -> tuple[str, ...]:
        """All references of the row, as text."""
        return (self.reference, *self.others)


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
    references = [[int(token) for token in store.answer_ids(row)] for row in rows]
    left_out = vocabulary.stop_ids | {vocabulary.pad_token_id}

    def whole(ids: Sequence[int]) -> str:
        return vocabulary.decode_whole([token for token in ids if token not in left_out])

    return tuple(
        Prediction(
            row=row,
            prompt=vocabulary.decode(prompt),
            reference=vocabulary.decode(reference),
            answer=answer.text,
            whole_reference=whole(reference),
            whole_answer=whole(answer.ids),
            is_complete=answer.is_complete,
            reference_lacks=vocabulary.unk_token_id in reference or store.is_lossy(row),
            others=tuple(store.references(row)),
        )
        for row, prompt, reference, answer in zip(rows, prompts, references, answers, strict=True)
    )
