"""Scores of one answer, and paired bootstrap intervals over rows and seeds. The measures are defined in quality.py."""

import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer

from bench.quality_records import KEYS

ROUGE = ("rouge1", "rouge2", "rougeL")
MEASURES = {
    "alpaca": ("loss", "exact", *ROUGE),
    "records": ("loss", "exact", "well_formed", "fields", "all_fields", *ROUGE),
}
RESAMPLES, BOOTSTRAP_SEED = 10_000, 0
_SCORER = RougeScorer(list(ROUGE), use_stemmer=True)


def text_scores(answer: str, reference: str) -> dict[str, float]:
    """Exact match and ROUGE."""
    found = _SCORER.score(reference, answer)
    exact = float(answer.strip() == reference.strip())
    return {"exact": exact, **{name: float(found[name].fmeasure) for name in ROUGE}}


def record_scores(answer: str, reference: str) -> dict[str, float]:
    """Format and fields of an answer to the task `records`, beside text_scores()."""
    fields, wanted = parsed(answer), parsed(reference)
    assert wanted is not None and is_well_formed(reference)
    right = [fields is not None and key in fields and _is_same(key, fields[key], wanted[key]) for key in KEYS]
    formed = is_well_formed(answer)
    scores = {
        "well_formed": float(formed),
        "fields": sum(right) / len(KEYS),
        "all_fields": float(formed and all(right)),
    }
    return {**text_scores(answer, reference), **scores}


def parsed(answer: str) -> dict[str, Any] | None:
    """The object that an answer is, white space around it left aside; numbers as Decimal. None where it is none."""
    text = answer.strip()
    if "\n" in text or "\r" in text:
        return None
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs, parse_float=Decimal, parse_int=Decimal, parse_constant=str)
    except (ValueError, InvalidOperation, RecursionError):
        return None
    if not isinstance(pairs, _Pairs) or len({key for key, _ in pairs}) != len(pairs):
        return None
    return dict(pairs)


class _Pairs(list):
    """Key and value pairs of a JSON object, so that a key that occurs twice is seen and a list is not taken for one."""


def is_well_formed(answer: str) -> bool:
    """One JSON object on one line, exactly the five keys, and each value of its kind."""
    fields = parsed(answer)
    if fields is None or set(fields) != set(KEYS):
        return False
    texts = [fields[key] for key in KEYS if key != "amount"]
    if not all(isinstance(text, str) and text.strip() for text in texts) or not isinstance(fields["amount"], Decimal):
        return False
    return _is_date(fields["date"]) and re.fullmatch("[A-Z]{3}", fields["currency"]) is not None


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII) is not None and bool(dt.date.fromisoformat(text))
    except ValueError:
        return False


def _is_same(key: str, value: Any, wanted: Any) -> bool:
    """Texts letter for letter; the amount by its value, given as a JSON number."""
    return isinstance(value, Decimal if key == "amount" else str) and bool(value == wanted)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Draws:
    """How often each resample takes each row and each seed: [resamples, rows] and [resamples, seeds]."""

    rows: NDArray[np.float64]
    seeds: NDArray[np.float64]


def draws(num_rows: int, num_seeds: int, *, draws_seeds: bool = True) -> Draws:
    """Rows and, independently of them, seeds drawn with replacement; the same for every model and measure.

    Without `draws_seeds` each seed counts once in every resample, so that the interval speaks of these seeds alone.
    """
    dice = np.random.default_rng(BOOTSTRAP_SEED)
    rows = dice.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=RESAMPLES)
    seeds = dice.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=RESAMPLES)
    return Draws(rows.astype(float), seeds.astype(float) if draws_seeds else np.ones_like(seeds, dtype=float))


def resampled(scores: NDArray[np.float64], weights: NDArray[np.float64], drawn: Draws) -> NDArray[np.float64]:
    """[resamples] weighted means of scores [seeds, rows]; weights [rows] are 1, or a row's tokens for the loss.

    The loss is sum of losses / sum of tokens over the drawn rows, so scores hold a row's sum divided by its weight.
    """
    per_row = drawn.seeds @ (scores * weights)  # [resamples, rows]
    return np.sum(per_row * drawn.rows, axis=1) / (drawn.seeds.sum(axis=1) * (drawn.rows @ weights))


def interval(scores: NDArray[np.float64], weights: NDArray[np.float64], drawn: Draws) -> Interval:
    """The weighted mean of scores [seeds, rows] with its percentile interval.

    For a difference give the difference of two models' scores: both then stand on the same draws (Koehn 2004).
    """
    mean = float((scores @ weights).mean() / weights.sum())
    low, high = np.quantile(resampled(scores, weights, drawn), (0.025, 0.975)).tolist()
    return Interval(mean, min(low, mean), max(high, mean))  # rounding puts a constant's ends beside it


def table_of(results: Sequence[dict], measure: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores [results, rows] and weights [rows] of one measure, from judged results of the same rows."""
    tokens = np.array([row["tokens"] for row in results[0]["rows"]], dtype=float)
    for result in results:
        assert [row["tokens"] for row in result["rows"]] == tokens.tolist(), "results of different rows"
    if measure == "loss":
        return np.array([[row["loss"] for row in result["rows"]] for result in results]) / tokens, tokens
    return np.array([[row[measure] for row in result["rows"]] for result in results]), np.ones_like(tokens)
