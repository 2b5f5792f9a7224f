"""Validation rows that are trained on all the same are counted and said."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.config.data import DataConfig
from fledge.data.pipeline import prepare_training
from tests.unit.data.tiny import gpt_like


def prepare(folder, train, validation):
    def source(name, prompts):
        rows = [json.dumps({"prompt": f"{prompt}?", "completion": f" {prompt}!"}) for prompt in prompts]
        (folder / name).write_text("\n".join(rows) + "\n")
        return {"path": str(folder / name), "format": "completion"}

    beside = validation if isinstance(validation, dict) else source("v.jsonl", validation)
    data = DataConfig.model_validate({"train": source("t.jsonl", train), "validation": beside})
    return prepare_training(data, gpt_like(), seed=3, progress=lambda done, total: None)


def test_rows_of_both_are_counted_and_noted(tmp_path):
    prepared = prepare(tmp_path, ["a", "b", "b", "c"], ["b", "x", "b", "a", "y"])
    assert prepared.ledger.repeated == 3
    assert prepared.ledger.notices() == ["validation: 3 of 5 rows are among the training rows too"]
    assert prepared.ledger.as_json()["validation_rows_in_training"] == 3
    other = prepare(tmp_path, ["a", "b"], ["c", "d"])
    assert other.ledger.repeated == 0 and not other.ledger.notices()


def test_a_fraction_of_a_file_with_repeated_rows_says_so_from_the_cache_too(tmp_path):
    for _ in range(2):
        ledger = prepare(tmp_path, ["a", "b", "c", "d"] * 5, {"fraction": 0.3}).ledger
        assert ledger.repeated == 6
    assert prepare(tmp_path, range(20), {"fraction": 0.3}).ledger.repeated == 0


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_the_count_is_that_of_a_search_row_by_row(tmp_path_factory, train, validation):
    prepared = prepare(tmp_path_factory.mktemp("rows"), train, validation)
    rows = [prepared.train.row(place).input_ids for place in range(len(prepared.train))]
    held = [prepared.validation.row(place).input_ids for place in range(len(prepared.validation))]
    assert prepared.ledger.repeated == sum(any(np.array_equal(one, row) for row in rows) for one in held)


def test_without_a_validation_source_nothing_is_said(tmp_path):
    data = DataConfig.model_validate({"train": {"path": str(tmp_path / "a.txt"), "format": "text"}})
    (tmp_path / "a.txt").write_text("words")
    prepared = prepare_training(data, gpt_like(), seed=0, progress=lambda done, total: None)
    assert "validation_rows_in_training" not in prepared.ledger.as_json()
