"""What is measured on answers, base beside tuned: exact match and ROUGE of the same answers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fledge.evaluation.answers import Prediction
from fledge.evaluation.exact_match import exact_share, is_exact, is_same
from fledge.evaluation.rouge import Comparison, Scores, compare, has_words, rouge_rows


@dataclass(frozen=True, slots=True)
class Wanted:
    """What answers are wanted for."""

    exact_match: bool = False
    rouge: bool = False

    @property
    def needs_answers(self) -> bool:
        """Whether answers have to be generated at all."""
        return self.exact_match or self.rouge


@dataclass(frozen=True, slots=True)
class Marks:
    """Base beside tuned on `rows` answered rows; what was not wanted is None.

    `cut` is how many answers of each were cut before they ended, `lacking` how many references have characters that the
    tokenizer cannot write, `wordless` how many have no word that ROUGE knows. `predictions` are lines of JSON, one for
    each row.
    """

    rows: int
    exact_match: tuple[float, float] | None
    rouge: Comparison | None
    cut: tuple[int, int]
    lacking: int
    wordless: int
    predictions: str


def mark(
    base: Sequence[Prediction], tuned: Sequence[Prediction], *, wanted: Wanted, where: Callable[[int], str]
) -> Marks:
    """Both models' answers to the same rows, compared with the references; `where` says where a row lies."""
    references = [one.reference for one in tuned]
    assert references == [one.reference for one in base], "both models answer the same rows"
    texts = [[one.answer for one in predictions] for predictions in (base, tuned)]
    lines = [_line(before, after, where(after.row)) for before, after in zip(base, tuned, strict=True)]
    shares, comparison = None, None
    if wanted.exact_match:
        shares = exact_share(base), exact_share(tuned)
        for line, before, after in zip(lines, base, tuned, strict=True):
            line |= {"base_is_exact": is_exact(before), "tuned_is_exact": is_exact(after)}
    if wanted.rouge:
        rows = [rouge_rows(answers, references) for answers in texts]
        comparison = compare(*rows)
        for line, before_scores, after_scores in zip(lines, *rows, strict=True):
            line |= {"base_rouge": before_scores, "tuned_rouge": after_scores}
    wordless = sum(not has_words(reference) for reference in references) if wanted.rouge else 0
    written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    cut = _num_cut(base), _num_cut(tuned)
    lacking = sum(one.reference_lacks for one in tuned)
    return Marks(len(lines), shares, comparison, cut, lacking, wordless, written)


def _num_cut(predictions: Sequence[Prediction]) -> int:
    return sum(not one.is_complete for one in predictions)


def _line(before: Prediction, after: Prediction, row: str) -> dict[str, Any]:
    """A row's texts; what makes it special stands there only where it does."""
    line: dict[str, Any] = {
        "row": row,
        "prompt": after.prompt,
        "reference": after.reference,
        "base": before.answer,
        "tuned": after.answer,
        "base_is_complete": before.is_complete,
        "tuned_is_complete": after.is_complete,
    }
    whole = {"reference": after.whole_reference, "base": before.whole_answer, "tuned": after.whole_answer}
    if any(not is_same(text, line[name]) for name, text in whole.items()):
        line |= {f"{name}_with_special_tokens": text for name, text in whole.items()}
    return line | ({"reference_lacks_characters": True} if after.reference_lacks else {})


def intervals_json(comparison: Comparison) -> dict[str, dict[str, list[float]]]:
    """The 95 % confidence intervals of a comparison: [low, high] of each metric."""
    parts = {"base": comparison.base, "tuned": comparison.tuned, "difference": comparison.difference}
    return {part: {name: [low, high] for name, (low, high) in rouge.intervals.items()} for part, rouge in parts.items()}


def means_json(comparison: Comparison) -> dict[str, Scores]:
    """The mean F-measures (0 to 1) of base and tuned."""
    return {"base": comparison.base.means, "tuned": comparison.tuned.means}
