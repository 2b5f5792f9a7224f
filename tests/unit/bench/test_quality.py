"""The pure parts of bench/quality.py: its records, its measures, its intervals, and the order of its parts."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.quality import settle
from bench.quality_kept import digest_of, keep, restore, same_before
from bench.quality_parts import Part, run_parts
from bench.quality_peft import order_of_epoch, rate_of_step, start_seed, steps_of
from bench.quality_records import KEYS, is_of_held_out, records
from bench.quality_rows import read_rows, write_rows
from bench.quality_scores import draws, interval, is_well_formed, record_scores, table_of, text_scores
from fledge.config.train import TrainConfig
from fledge.data.sampler import RowOrder
from fledge.runtime.random import derive_seed
from fledge.training.schedule import learning_rate_of

REFERENCE = '{"person": "Ana Torberg", "place": "Lyon", "date": "2020-02-29", "amount": 1250.50, "currency": "EUR"}'


def test_training_and_held_out_records_share_no_sentence_no_surname_and_no_city():
    sides = [records(400, 3, is_held_out=kept) for kept in (False, True)]
    sentences = [{row["messages"][1]["content"] for row in rows} for rows in sides]
    answers = [[json.loads(row["messages"][2]["content"]) for row in rows] for rows in sides]
    assert [len(found) for found in sentences] == [400, 400]
    assert not sentences[0] & sentences[1]
    for key in ("person", "place"):
        kept = [{answer[key].split()[-1] for answer in rows} for rows in answers]
        assert not kept[0] & kept[1]
        assert [all(is_of_held_out(name) == is_kept for name in kept[is_kept]) for is_kept in (0, 1)] == [True, True]


def test_the_same_seed_makes_the_same_records_and_another_seed_others():
    assert records(20, 1, is_held_out=False) == records(20, 1, is_held_out=False)
    assert records(20, 1, is_held_out=False) != records(20, 2, is_held_out=False)


def test_every_reference_is_well_formed_and_right_by_its_own_measure():
    for row in records(300, 5, is_held_out=True):
        answer = row["messages"][2]["content"]
        assert set(record_scores(answer, answer).values()) == {1.0}


@pytest.mark.parametrize(
    ("answer", "formed", "fields", "whole"),
    [
        (REFERENCE, 1, 5, 1),
        (f"  {REFERENCE}\n", 1, 5, 1),
        (REFERENCE.replace("1250.50", "1250.5"), 1, 5, 1),
        (REFERENCE.replace("1250.50", '"1250.50"'), 0, 4, 0),
        (REFERENCE.replace("1250.50", "NaN"), 0, 4, 0),
        (REFERENCE.replace("1250.50", "true"), 0, 4, 0),
        (REFERENCE.replace("2020-02-29", "2021-02-29"), 0, 4, 0),
        (REFERENCE.replace("2020-02-29", "29.2.2020"), 0, 4, 0),
        (REFERENCE.replace("EUR", "eur"), 0, 4, 0),
        (REFERENCE.replace("EUR", "USD"), 1, 4, 0),
        (REFERENCE.replace("Lyon", ""), 0, 4, 0),
        (REFERENCE.replace("{", '{"note": "", '), 0, 5, 0),
        (REFERENCE.replace('"person": "Ana Torberg", ', ""), 0, 4, 0),
        (REFERENCE.replace("{", '{"person": "Ana Torberg", '), 0, 0, 0),
        (REFERENCE.replace(", ", ",\n "), 0, 0, 0),
        (f"Here it is: {REFERENCE}", 0, 0, 0),
        (f"[{REFERENCE}]", 0, 0, 0),
        ("[" * 100_000, 0, 0, 0),
        ('[["person", "Ana Torberg"]]', 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_an_answer_is_judged_as_the_definition_says(answer, formed, fields, whole):
    scores = record_scores(answer, REFERENCE)
    assert (scores["well_formed"], scores["fields"] * len(KEYS), scores["all_fields"]) == (formed, fields, whole)


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=5).map(json.dumps))
def test_no_answer_breaks_the_judge_and_none_of_these_is_well_formed(answer):
    assert not is_well_formed(answer)
    assert record_scores(answer, REFERENCE)["all_fields"] == 0


def test_exact_leaves_the_white_space_around_an_answer_aside_and_no_other():
    assert text_scores(" a b\n", "a b")["exact"] == 1
    assert text_scores("a  b", "a b") | {"rouge2": 1.0} == {"exact": 0, "rouge1": 1, "rouge2": 1, "rougeL": 1}


def test_an_interval_of_a_difference_is_narrow_where_rows_move_together():
    dice = np.random.default_rng(1)
    rows = dice.normal(size=200) * 10
    base, tuned = rows, np.stack([rows + 0.5 + dice.normal(size=200) * 0.1 for _ in range(3)])
    ones = np.ones(200)
    paired = interval(tuned - base, ones, draws(200, 3))
    alone = interval(tuned, ones, draws(200, 3))
    assert 0.45 < paired.low < 0.5 < paired.high < 0.55 and paired.excludes_zero
    assert alone.high - alone.low > 20 * (paired.high - paired.low)
    # the normal interval of the same differences is near it
    half = 1.96 * (tuned.mean(0) - base).std() / np.sqrt(200)
    over_rows = interval(tuned - base, ones, draws(200, 3, draws_seeds=False))
    assert over_rows.high - over_rows.low == pytest.approx(2 * half, rel=0.1)


def test_seeds_that_differ_widen_the_interval_and_a_base_without_seeds_does_not_mind_them():
    scores = np.tile([[0.1], [0.5], [0.9]], (1, 50)).astype(float)
    ones = np.ones(50)
    assert interval(scores, ones, draws(50, 3)).high > 0.8
    alone = interval(scores, ones, draws(50, 3, draws_seeds=False))
    assert (alone.low, alone.mean, alone.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_loss_is_by_token_and_not_by_row():
    rows = [{"tokens": 1, "loss": 3.0, "exact": 1.0}, {"tokens": 9, "loss": 9.0, "exact": 0.0}]
    scores, weights = table_of([{"rows": rows}], "loss")
    assert interval(scores, weights, draws(2, 1)).mean == pytest.approx(12 / 10)
    scores, weights = table_of([{"rows": rows}], "exact")
    assert interval(scores, weights, draws(2, 1)).mean == 0.5


@given(seed=st.integers(0, 2**63 - 1), size=st.integers(1, 70), epochs=st.integers(1, 3))
def test_the_plain_training_takes_the_rows_at_the_rates_and_from_the_start_of_fledge(seed, size, epochs):
    order = RowOrder((size,), (1.0,), seed=seed, rows_per_step=16)
    steps = steps_of(size, seed=seed, num_epochs=epochs)
    total = order.total_steps(epochs, None)
    assert [tuple(rows) for rows in steps] == [order.rows_of_step(step) for step in range(1, total + 1)]
    assert sorted(order_of_epoch(seed, 0, num_rows=size)) == list(range(size))
    assert start_seed(seed) == derive_seed(seed, "adapter")
    rate = learning_rate_of(TrainConfig(learning_rate=0.01, lr_scheduler="cosine", warmup_ratio=0.03), total)
    assert [rate_of_step(step, total, peak=0.01) for step in range(1, total + 1)] == pytest.approx(
        [rate.at(step) for step in range(1, total + 1)]
    )


def test_rows_that_are_written_are_read_whatever_line_ends_their_texts_hold(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a\u2028b\x85c\r\nd"}]}, {"messages": []}]
    write_rows(tmp_path / "new" / "rows.jsonl", rows)
    assert read_rows(tmp_path / "new" / "rows.jsonl") == rows


def part(folder: Path, name: str, *, after: Part | None = None, fails: bool = False) -> Part:
    code = f"import pathlib; f = pathlib.Path({str(folder / name / 'result')!r}); f.parent.mkdir(); f.touch()"
    code += f"; pathlib.Path({str(folder / 'order')!r}).open('a').write('{name} ')"
    return Part(name, ["-c", "1 / 0" if fails else code], folder / name / "result", ("train", "t", name), after)


def test_a_part_waits_for_what_it_needs_and_is_not_run_again(tmp_path):
    first = part(tmp_path, "first")
    parts = [part(tmp_path, "second", after=first), first]
    for _ in range(2):
        assert run_parts(parts, jobs=2, scale={"train": 1.0}, stop_after=None)
    assert (tmp_path / "order").read_text() == "first second "


def test_no_part_starts_that_would_end_too_late(tmp_path):
    assert not run_parts([part(tmp_path, "late")], jobs=1, scale={"train": 1.0}, stop_after=1e-6)
    assert not (tmp_path / "order").exists()


def test_a_part_that_fails_ends_the_script_with_what_it_printed(tmp_path):
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        run_parts([part(tmp_path, "bad", fails=True)], jobs=1, scale={"train": 1.0}, stop_after=None)


def test_results_of_other_settings_are_not_mixed(tmp_path):
    settle(tmp_path, {"rows": 1})
    settle(tmp_path, {"rows": 1})
    with pytest.raises(SystemExit, match="other settings"):
        settle(tmp_path, {"rows": 2})


def test_kept_results_have_no_text_and_come_back_with_the_same_scores(tmp_path):
    out, kept, again = (tmp_path / name for name in ("out", "kept", "again"))
    rows = [
        {"tokens": 3, "loss": 1.23456789, "answer": f"secret {number % 2}", "is_cut": False, "exact": 1.0}
        for number in range(4)
    ]
    place = out / "alpaca/seed-1-peft/judged.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"rows": rows, "loss_seconds": 1.5, "answer_seconds": 2.0}))
    keep(out, kept, {"alpaca": {"1": {"steps": 5}}, "records": {}})
    assert all("secret" not in file.read_text() for file in kept.rglob("*.json"))
    assert same_before(kept, "alpaca") == {"1": {"steps": 5}} and same_before(kept, "records") == {}
    restore(kept, again)
    found = json.loads((again / "alpaca/seed-1-peft/judged.json").read_text())
    assert [row["loss"] for row in found["rows"]] == [1.234568] * 4 and found["loss_seconds"] == 1.5
    assert [digest_of(row) for row in found["rows"]] == [digest_of(row) for row in rows]
    assert digest_of(found["rows"][0]) != digest_of(found["rows"][1])
    keep(again, kept, {})
    assert sorted(file.name for file in kept.rglob("*.json")) == ["same.json", "seed-1-peft.json"]
