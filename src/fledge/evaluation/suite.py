"""What is measured on answers, base beside tuned: exact match and ROUGE of the same answers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fledge.evaluation.answers import Prediction
from fledge.evaluation.exact_match import exact_mean, exact_parts, exact_share, is_same
from fledge.evaluation.rouge import Comparison, Scores, compare, has_words, rouge_of_all


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
    several: int = 0
    """Rows with several references. `exact_match` and `rouge` take each answer's best; these the mean over all:"""
    exact_mean: tuple[float, float] | None = None
    rouge_mean: Comparison | None = None


def mark(
    base: Sequence[Prediction], tuned: Sequence[Prediction], *, wanted: Wanted, where: Callable[[int], str]
) -> Marks:
    """Both models' answers to the same rows, compared with the references; `where` says where a row lies."""
    references = [one.references for one in tuned]
    assert references == [one.references for one in base], "both models answer the same rows"
    several = sum(len(texts) > 1 for texts in references)
    texts = [[one.answer for one in predictions] for predictions in (base, tuned)]
    lines = [_line(before, after, where(after.row)) for before, after in zip(base, tuned, strict=True)]
    shares, exact_means, comparison, mean_comparison = None, None, None, None
    if wanted.exact_match:
        shares = exact_share(base), exact_share(tuned)
        exact_means = (exact_mean(base), exact_mean(tuned)) if several else None
        for line, before, after in zip(lines, base, tuned, strict=True):
            line |= {"base_is_exact": any(exact_parts(before)), "tuned_is_exact": any(exact_parts(after))}
    if wanted.rouge:
        (base_best, base_mean), (tuned_best, tuned_mean) = (rouge_of_all(answers, references) for answers in texts)
        comparison = compare(base_best, tuned_best)
        mean_comparison = compare(base_mean, tuned_mean) if several else None
        for line, before_scores, after_scores in zip(lines, base_best, tuned_best, strict=True):
            line |= {"base_rouge": before_scores, "tuned_rouge": after_scores}
    wordless = sum(not any(map(has_words, row)) for row in references) if wanted.rouge else 0
    written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    cut = _num_cut(base), _num_cut(tuned)
    lacking = sum(one.reference_lacks for one in tuned)
    return Marks(
        rows=len(lines),
        exact_match=shares,
        rouge=comparison,
        cut=cut,
        lacking=lacking,
        wordless=wordless,
        predictions=written,
        several=several,
        exact_mean=exact_means,
        rouge_mean=mean_comparison,
    )


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
    if after.others:
        line["other_references"] = list(after.others)
    return line | ({"reference_lacks_characters": True} if after.reference_lacks else {})


def intervals_json(comparison: Comparison) -> dict[str, dict[str, list[float]]]:
    """The 95 % confidence intervals of a comparison: [low, high] of each metric."""
    parts = {"base": comparison.base, "tuned": comparison.tuned, "difference": comparison.difference}
    return {part: {name: [low, high] for name, (low, high) in rouge.intervals.items()} for part, rouge in parts.items()}


def means_of_several(marks: Marks) -> dict[str, Any]:
    """What the answers come to by the mean over all references of a row; nothing where each row has one."""
    if not marks.several:
        return {}
    found: dict[str, Any] = {"rows_with_several_references": marks.several}
    if marks.exact_mean is not None:
        found["exact_match_mean"] = dict(zip(("base", "tuned"), marks.exact_mean, strict=True))
    if marks.rouge_mean is not None:
        found |= {"rouge_mean": means_json(marks.rouge_mean), "rouge_mean_intervals": intervals_json(marks.rouge_mean)}
    return found


def means_json(comparison: Comparison) -> dict[str, Scores]:
    """The mean F-measures (0 to 1) of base and tuned."""
    return {"base": comparison.base.means, "tuned": comparison.tuned.means}
