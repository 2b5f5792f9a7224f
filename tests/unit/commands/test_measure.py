"""The size of micro-batch is measured once, in a process of its own, and a measurement that fails costs nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fledge.commands import measure as module
from fledge.commands.measure import choose, fastest_size
from fledge.data.rows import Row
from fledge.models.load import load_base
from tests.runs import load
from tests.tiny_models import tiny_folder

BEGIN = [11, 12, 13, 14] * 3
ROWS = [
    Row(np.array(BEGIN + ids, dtype=np.int32), np.arange(len(BEGIN + ids)) > len(BEGIN))
    for ids in ([7, 8, 9] * 12, [7, 8, 9, 10] * 7, [3] * 20)
]


def test_the_smallest_size_that_is_nearly_the_fastest_is_taken():
    assert choose({"384": 1.2, "512": 1.02, "640": 1.0, "1024": 1.01}) == 512
    assert choose({"384": 1.2, "1024": 1.0}) == 1024


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Asks for a tiny model as if it were worth it; returns the answer and what was told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SIZES", (32, 64, 128))
    base = tiny_folder("bloom", tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text('{"text": "a row"}\n')
    content = {
        "model": {"name_or_path": str(base), "dtype": "float32"},
        "data": {"train": {"path": "rows.jsonl", "format": "text"}, "max_length": 64},
    }
    recipe = load(tmp_path, content)
    facts = load_base(recipe.model, device=torch.device("cpu")).facts

    def ask(*, parameters: int = 10**9, most: float = 1e9, name: str = str(base)):
        told: list[str] = []
        chosen = recipe.model_copy(update={"model": recipe.model.model_copy(update={"name_or_path": name})})
        known = replace(facts, num_parameters=parameters)
        return fastest_size(chosen, known, rows=ROWS, most=most, tell=lambda event: told.append(event.text)), told

    return ask


def test_a_size_is_measured_once_for_a_model_and_remembered(asked, tmp_path: Path):
    first, told = asked()
    assert first in (64, 128), "32 is shorter than a row may be"
    assert len(told) == 1
    assert len(list((tmp_path / "cache/fledge/sizes").glob("*.json"))) == 1
    assert asked() == (first, [])


def test_a_small_model_or_one_choice_is_not_worth_a_measurement(asked):
    assert asked(parameters=10**6) == (module.USUAL, [])
    assert asked(most=70) == (module.USUAL, [])


def test_a_measurement_that_fails_is_no_failure(asked, tmp_path: Path):
    size, told = asked(name=str(tmp_path / "nowhere"))
    assert (size, len(told)) == (module.USUAL, 1)
    assert not (tmp_path / "cache/fledge/sizes").exists()
