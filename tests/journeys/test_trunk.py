"""Rows after one long beginning: it is computed once a step, no loss changes, a killed run ends with the same bits."""

import json

import pytest

from fledge.commands.train import train
from fledge.engine.run import Engine
from fledge.rundir import RunDir, read_steps
from tests.journeys.killing import train_through_kills
from tests.runs import fledge, load, recipe_dict, write_recipe
from tests.tiny_models import tiny_folder

STEPS = 8
BEGIN = "You are a patient teacher who answers with one word. " * 2


@pytest.fixture(scope="module")
def content_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trunk")
    base = tiny_folder("llama", folder / "base")
    rows = folder / "rows.jsonl"
    lines = [{"prompt": f"{BEGIN}{n} plus {n % 5} =", "completion": f" {n + n % 5}"} for n in range(40)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def content(name: str, **changes) -> tuple[dict, RunDir]:
        sizes = {"train__global_batch_size": 20, "train__micro_batch_tokens": 128, "data__max_length": 192}
        whole = recipe_dict(base, rows, folder / name, train__max_steps=STEPS, **sizes, **changes)
        return whole, RunDir(folder / name)

    return content


def losses(run: RunDir) -> list[float]:
    return [event["loss"] for event in read_steps(run.events)]


def test_it_is_computed_once_a_step_and_changes_no_loss(content_of, tmp_path, monkeypatch):
    opened: list[int] = []
    open_trunk = Engine._open

    def counted(engine, side):
        opened.append(side.input_ids.shape[0])
        open_trunk(engine, side)

    monkeypatch.setattr(Engine, "_open", counted)
    found = []
    for name, shares in (("once", True), ("each", False)):
        content, run = content_of(name, train__share_prefixes=shares)
        train(load(tmp_path / name, content))
        found.append(losses(run))
        opened.append(0)
    of_training = opened[: opened.index(0)][-STEPS:]
    assert len(of_training) == STEPS and min(of_training) > 64, opened
    assert set(opened[opened.index(0) + 1 :]) <= {0, opened[0]}, "without sharing only the proof has a trunk"
    assert found[0] == pytest.approx(found[1], abs=1e-5)


@pytest.mark.slow
def test_killed_anywhere_and_resumed_changes_no_bit(content_of, tmp_path):
    whole, run = content_of("whole")
    fledge("train", str(write_recipe(tmp_path / "whole.yaml", whole)))
    content, killed = content_of("killed")
    outcome = train_through_kills(write_recipe(tmp_path / "killed.yaml", content), killed.root, kills=3, seed=5)
    summary = json.loads((run.root / "summary.json").read_text())
    assert outcome.kills
    assert outcome.summary["adapter_sha256"] == summary["adapter_sha256"]
    assert [loss for _, loss, _ in outcome.steps] == losses(run)
