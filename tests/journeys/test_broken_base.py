"""A base with a weight that is no number, which no row has to do with: it is told, whatever computes."""

import math

import pytest
from safetensors.torch import load_file, save_file

from fledge.commands.train import train
from fledge.errors import TrainingError
from fledge.rundir import read_events
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import VOCABULARY, tiny_folder


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_it_is_told_at_the_first_step(engine, tmp_path):
    base = tiny_folder("llama", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"][VOCABULARY - 1, 3] = math.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    rows = write_rows(tmp_path / "rows.jsonl")
    content = recipe_dict(base, rows, tmp_path / "run", train__engine=engine)
    with pytest.raises(TrainingError, match="the gradient of step 1 is not finite") as caught:
        train(load(tmp_path / "recipe", content))
    assert "look at the base's weights too" in str(caught.value)
    told = [event["text"] for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "notice"]
    assert any("the library's own loss is nan on this base" in text for text in told) == (engine == "auto")
