"""ROUGE is the package's to the last digit, whatever the text, and its intervals are reproducible and hold the mean."""

import json
import logging
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from fledge.evaluation.answers import Prediction
from fledge.evaluation.rouge import METRICS, compare, has_words, rouge_of_all, rouge_rows
from fledge.evaluation.suite import Wanted, intervals_json, mark, means_json

HOSTILE = (
    st.text(max_size=60)
    | st.sampled_from(
        [
            "",
            "...!?",
            "\n\n",
            "a\nb\n\nc",
            "Ünïcödé ß",
            "привет мир",
            "日本語",
            "\u2028x\u2029",
            "\x00\ud7ff",
            "a" * 40,
            "İ K",
        ]
    )
    | st.lists(st.sampled_from("the cat cats sat running ran on mat . , \n".split(" ")), max_size=30).map(" ".join)
)
PAIRS = st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), min_size=1, max_size=6)
SCORES = st.fixed_dictionaries({name: st.floats(0, 1) for name in METRICS})


@given(PAIRS)
@settings(deadline=None)
def test_rows_are_scored_as_the_package_scores_them(rows):
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    found = rouge_rows([row[0] for row in rows], [row[1] for row in rows])
    for (answer, reference, _), scores in zip(rows, found, strict=True):
        assert scores == {name: score.fmeasure for name, score in scorer.score(reference, answer).items()}
        assert all(type(score) is float and 0 <= score <= 1 for score in scores.values())


@given(st.lists(st.tuples(HOSTILE, st.lists(HOSTILE, min_size=1, max_size=4)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_of_several_references_the_best_is_the_packages_and_the_mean_is_that_of_each_alone(rows):
    scorer = RougeScorer(list(METRICS), use_stemmer=True)
    best, means = rouge_of_all([answer for answer, _ in rows], [references for _, references in rows])
    for (answer, references), top, mean in zip(rows, best, means, strict=True):
        together = scorer.score_multi(references, answer)
        alone = [scorer.score(reference, answer) for reference in references]
        assert top == {name: score.fmeasure for name, score in together.items()}
        assert mean == {name: fmean(one[name].fmeasure for one in alone) for name in METRICS}


def test_stemming_is_on_and_known_numbers_come_out():
    (scores,) = rouge_rows(["the cats were running"], ["the cat was running"])
    assert scores["rouge1"] == 0.75 and scores["rouge2"] == pytest.approx(1 / 3)
    assert rouge_rows(["same words"], ["same words"]) == [dict.fromkeys(METRICS, 1.0)]
    assert rouge_rows(["", "?!"], ["a reference", "a reference"]) == [dict.fromkeys(METRICS, 0.0)] * 2


def test_a_line_is_a_sentence_for_rougelsum_alone():
    (apart,) = rouge_rows(["the second one\nthe first one"], ["the first one\nthe second one"])
    (joined,) = rouge_rows(["the second one the first one"], ["the first one the second one"])
    assert apart["rougeLsum"] == 1.0 > apart["rougeL"] == joined["rougeL"] == joined["rougeLsum"]


@given(st.text(max_size=30))
def test_a_reference_has_words_where_the_package_finds_some(text):
    assert has_words(text) == (rouge_rows([text], [text])[0]["rouge1"] == 1.0)


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=12))
@settings(deadline=None, max_examples=30)
def test_intervals_are_reproducible_and_hold_the_mean(rows):
    base, tuned = [row[0] for row in rows], [row[1] for row in rows]
    found = compare(base, tuned)
    assert found == compare(base, tuned)
    for part, scores in ((found.base, base), (found.tuned, tuned)):
        assert part.means == {name: fmean(row[name] for row in scores) for name in METRICS}
    for part in (found.base, found.tuned, found.difference):
        for name in METRICS:
            low, high = part.intervals[name]
            assert low <= part.means[name] <= high
    for name in METRICS:
        assert found.difference.means[name] == found.tuned.means[name] - found.base.means[name]


def test_the_interval_is_as_wide_as_the_theory_of_means_says():
    values = np.random.default_rng(1).random(400)
    rows = [dict.fromkeys(METRICS, float(value)) for value in values]
    low, high = compare(rows, rows).base.intervals["rouge1"]
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.004)
    assert high == pytest.approx(values.mean() + half, abs=0.004)


def test_the_difference_is_taken_row_by_row():
    values = np.random.default_rng(2).random(200)
    base = [dict.fromkeys(METRICS, float(value) / 2) for value in values]
    tuned = [dict.fromkeys(METRICS, float(value) / 2 + 0.25) for value in values]
    found = compare(base, tuned)
    low, high = found.difference.intervals["rougeL"]
    assert high - low < 1e-9 and low == pytest.approx(0.25)
    assert found.base.intervals["rougeL"][1] > found.base.intervals["rougeL"][0] + 0.01


@given(PAIRS, st.booleans(), st.booleans())
@settings(deadline=None, max_examples=30)
def test_what_is_written_row_by_row_gives_the_totals_again(rows, wants_exact, wants_rouge):
    base, tuned = (
        [Prediction(n, "p", row[1], row[who], row[1], row[who], n % 2 == 0, n % 3 == 0) for n, row in enumerate(rows)]
        for who in (0, 2)
    )
    wanted = Wanted(exact_match=wants_exact, rouge=wants_rouge)
    marks = mark(base, tuned, wanted=wanted, where=lambda row: f"rows:{row}")
    lines = [json.loads(line) for line in marks.predictions.split("\n")[:-1]]
    assert [line["row"] for line in lines] == [f"rows:{n}" for n in range(len(rows))] and marks.rows == len(rows)
    assert [(line["base"], line["reference"], line["tuned"]) for line in lines] == rows
    assert marks.cut == (len(rows) // 2, len(rows) // 2) and marks.lacking == (len(rows) + 2) // 3
    assert (marks.exact_match is not None, marks.rouge is not None) == (wants_exact, wants_rouge)
    if marks.exact_match is not None:
        assert marks.exact_match == tuple(fmean(line[f"{who}_is_exact"] for line in lines) for who in ("base", "tuned"))
    if marks.rouge is not None:
        assert marks.wordless == sum(not has_words(line["reference"]) for line in lines)
        for who, means in means_json(marks.rouge).items():
            assert means == {name: fmean(line[f"{who}_rouge"][name] for line in lines) for name in METRICS}
        assert json.loads(json.dumps(intervals_json(marks.rouge))) == intervals_json(marks.rouge)


def test_scoring_leaves_the_logging_of_the_process_alone():
    before = list(logging.root.handlers)
    rouge_rows(["a cat"], ["the cat"])
    assert logging.root.handlers == before
