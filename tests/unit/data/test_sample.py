"""A sample of the rows' texts lies in the cache with their ids, spread over all rows and bounded."""

import itertools
import json

import pytest

from fledge.config.data import DataConfig
from fledge.data import sample
from fledge.data.pipeline import prepare_training, samples_of
from fledge.data.sample import TextSample, read_sample
from tests.unit.data.tiny import llama_like


def written(tmp_path, texts):
    kept = TextSample()
    for text in texts:
        kept.add([text])
    kept.write(tmp_path, llama_like())
    return read_sample(tmp_path)


@pytest.mark.parametrize("count", [0, 1, 2000, 2001, 9000])
def test_the_sample_is_spread_over_all_texts(count, tmp_path):
    texts = [text for text, _ in written(tmp_path, [f"row {number}" for number in range(count)])]
    numbers = [int(text.split()[1]) for text in texts]
    assert len(texts) == count if count <= 2000 else 1000 <= len(texts) <= 2000
    assert len({later - first for first, later in itertools.pairwise(numbers)}) <= 1
    assert not count or (numbers[0] == 0 and numbers[-1] > count - 10)


def test_long_texts_are_cut_and_many_long_ones_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "LONGEST", 10)
    monkeypatch.setattr(sample, "MOST_CHARACTERS", 55)
    found = written(tmp_path, ["x" * 30] * 40)
    assert 1 <= len(found) <= 5
    assert all(text == "x" * 10 and ids == llama_like().encode_batch([text])[0].ids for text, ids in found)


def test_prepared_rows_have_their_texts_from_the_cache_too(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(20)))
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "held out"}) + "\n")
    source = {"path": str(rows), "format": "text"}
    tokenizer = llama_like()
    for validation, expected in ((None, 20), ({"fraction": 0.2}, 20), ({"path": str(other), "format": "text"}, 21)):
        data = DataConfig.model_validate({"train": source, "validation": validation})
        for _ in range(2):
            prepared = prepare_training(data, tokenizer, seed=0, progress=lambda done, total: None)
            found = samples_of(prepared)
            assert len(found) == expected
            assert all(ids == tokenizer.encode_batch([text])[0].ids for text, ids in found)
    assert prepared.from_cache
