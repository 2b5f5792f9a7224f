"""ROUGE as papers report it: F-measures of the package rouge-score, with stemming, and how sure their mean is."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
RESAMPLES, SEED = 1000, 0
_TAILS = (0.025, 0.975)

Scores = dict[str, float]
"""A number for each of METRICS."""
Intervals = dict[str, tuple[float, float]]
"""For each of METRICS the ends of a 95 % confidence interval."""


@dataclass(frozen=True, slots=True)
class Rouge:
    """Mean F-measures (0 to 1) over rows and their 95 % confidence intervals."""

    means: Scores
    intervals: Intervals


@dataclass(frozen=True, slots=True)
class Comparison:
    """Base beside tuned. `difference` is of tuned - base, on the same rows."""

    base: Rouge
    tuned: Rouge
    difference: Rouge


def rouge_rows(answers: Sequence[str], references: Sequence[str]) -> list[Scores]:
    """F-measures of each answer, as `RougeScorer(METRICS, use_stemmer=True)` gives them for the texts as they are.

    The package compares words of Latin letters and digits and knows no others. rougeLsum takes a line for a sentence:
    papers put each sentence on a line of its own beforehand, in reference and prediction; where neither has line
    breaks it equals rougeL. Source: Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries.
    """
    # its own tokenizer, but made here: where the package makes it, it sets up logging for the whole process
    scorer = RougeScorer(list(METRICS), tokenizer=DefaultTokenizer(use_stemmer=True))
    return [
        {name: float(score.fmeasure) for name, score in scorer.score(reference, answer).items()}
        for answer, reference in zip(answers, references, strict=True)
    ]


def rouge_of_all(answers: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[Scores], list[Scores]]:
    """For each answer its best and its mean F-measure over all of its references, each metric for itself.

    The best is what `RougeScorer.score_multi` takes.
    """
    counts = [len(texts) for texts in references]
    pairs = [(answer, text) for answer, texts in zip(answers, references, strict=True) for text in texts]
    scores = iter(rouge_rows([answer for answer, _ in pairs], [text for _, text in pairs]))
    rows = [[next(scores) for _ in range(count)] for count in counts]
    best = [{name: max(one[name] for one in row) for name in METRICS} for row in rows]
    return best, [{name: fmean(one[name] for one in row) for name in METRICS} for row in rows]


def has_words(text: str) -> bool:
    """Whether the package finds a word in `text`; where there is none in a reference, every answer scores 0."""
    return any(sign.isascii() and sign.isalnum() for sign in text.lower())


def compare(base: Sequence[Scores], tuned: Sequence[Scores]) -> Comparison:
    """Means of both models over the same rows, with intervals by bootstrap over rows; the same rows give the same.

    Source: Efron 1979 for the percentile bootstrap; Koehn 2004, Statistical Significance Tests for Machine Translation
    Evaluation, for resampling two systems on the same rows.
    """
    assert len(base) == len(tuned), "both models answer the same rows"
    table = np.array([[[row[name] for name in METRICS] for row in rows] for rows in (base, tuned)])
    means = np.array([[fmean(row[name] for row in rows) for name in METRICS] for rows in (base, tuned)])
    drawn = _resampled(table)
    difference = _rouge(means[1] - means[0], drawn[:, 1] - drawn[:, 0])
    return Comparison(_rouge(means[0], drawn[:, 0]), _rouge(means[1], drawn[:, 1]), difference)


def _resampled(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """[resamples, models, metrics] means over rows drawn with replacement from [models, rows, metrics], the same rows
    for both models.
    """
    dice, count = np.random.default_rng(SEED), table.shape[1]
    return np.stack([table[:, dice.integers(0, count, count)].mean(axis=1) for _ in range(RESAMPLES)])


def _rouge(means: NDArray[np.float64], drawn: NDArray[np.float64]) -> Rouge:
    low, high = np.quantile(drawn, _TAILS, axis=0)
    # where all rows score the same, rounding alone would put the mean beside its interval
    low, high = np.minimum(low, means), np.maximum(high, means)
    intervals = {name: (float(low[place]), float(high[place])) for place, name in enumerate(METRICS)}
    return Rouge({name: float(means[place]) for place, name in enumerate(METRICS)}, intervals)
