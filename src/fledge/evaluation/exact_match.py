"""Exact answers: how often an answer is the reference, letter for letter."""

from collections.abc import Sequence


def is_exact(answer: str, reference: str) -> bool:
    """Whether answer and reference are the same text, space around them left aside."""
    return answer.strip() == reference.strip()


def exact_share(answers: Sequence[str], references: Sequence[str]) -> float:
    """Share (0 to 1) of the answers, at least one, that are exactly their reference."""
    exact = sum(is_exact(answer, reference) for answer, reference in zip(answers, references, strict=True))
    return exact / len(answers)
