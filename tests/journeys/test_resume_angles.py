"""Bases whose rotary angles change with the length of a row: a killed run goes on to the same bits."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench.families_bases import build, tokenizer, write_rows
from fledge.models.rotary import angles_change
from tests.journeys.killing import steps_of, train_through_kills
from tests.journeys.test_resume import states_of
from tests.runs import fledge, recipe_dict, write_recipe

ORIGINAL = 24
"""Tokens from which on the angles are others."""
LONGEST = 64
KINDS = {"llama+rope-dynamic": "dynamic", "phi3+rope-longrope": "longrope"}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_killed_and_resumed_changes_no_bit_where_angles_change(name, tmp_path):
    build(name, tmp_path / "base")
    rows = write_rows(tmp_path / "rows.jsonl", count=48, seed=1)
    texts = [row["prompt"] + row["completion"] for row in map(json.loads, rows.read_text().splitlines())]
    lengths = [len(tokenizer()(text).input_ids) for text in texts]
    assert min(lengths) < ORIGINAL < max(lengths) <= LONGEST
    config = AutoConfig.from_pretrained(tmp_path / "base")
    assert config.rope_parameters["rope_type"] == KINDS[name]
    rotary = AutoModelForCausalLM.from_config(config).model.rotary_emb
    device = torch.device("cpu")
    assert angles_change(rotary, max(lengths), device=device) and not angles_change(rotary, ORIGINAL, device=device)

    def recipe(run: str) -> tuple:
        changes = {"train__max_steps": 12, "train__micro_batch_tokens": 96, "evaluate__every_steps": 3}
        changes |= {"data__validation": {"fraction": 0.2}, "lora__lora_dropout": 0.1, "data__max_length": LONGEST}
        content = recipe_dict(tmp_path / "base", rows, tmp_path / run, **changes)
        return write_recipe(tmp_path / f"{run}.yaml", content), tmp_path / run

    undisturbed, run = recipe("undisturbed")
    fledge("train", str(undisturbed))
    summary = json.loads((run / "summary.json").read_text())
    outcome = train_through_kills(*recipe("killed"), kills=3, seed=4)
    assert outcome.kills
    assert outcome.steps == steps_of(run)
    assert states_of(tmp_path / "killed") == states_of(run)
    names = ("adapter_sha256", "adapter_file_sha256", "validation_loss", "tokens", "rows", "first_loss", "last_loss")
    assert [outcome.summary[each] for each in names] == [summary[each] for each in names]
