"""A finished run is left alone where nothing has changed, mended where it is damaged, and refused other rows."""

import json
import shutil

import pytest

from fledge.commands import finished as finished_room
from fledge.commands import train as train_room
from fledge.commands.open_run import open_run
from fledge.commands.train import train
from fledge.errors import RunError
from fledge.rundir import RunDir, read_events
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of a tiny base, and what its recipe is made of."""
    folder = tmp_path_factory.mktemp("finished")
    content = recipe_dict(tiny_folder("llama", folder / "base"), write_rows(folder / "rows.jsonl"), folder / "run")
    train(load(folder, content))
    return folder, content


@pytest.fixture
def workplace(trained, tmp_path):
    """A copy of the run with rows of its own, which a test may spoil."""
    folder, content = trained
    shutil.copytree(folder, tmp_path / "copy")
    text = json.dumps(content).replace(str(folder), str(tmp_path / "copy"))
    copy = tmp_path / "copy"
    saved = copy / "run" / "recipe.yaml"
    saved.write_text(saved.read_text().replace(str(folder), str(copy)))
    return copy, json.loads(text)


def test_a_finished_run_is_left_alone_and_its_base_is_not_loaded(workplace, monkeypatch):
    folder, content = workplace
    for name in ("load_base", "joined_mesh"):
        monkeypatch.setattr(train_room, name, None)
    result = train(load(folder, content))
    assert result.was_finished and not result.note


def test_changed_rows_are_refused_and_put_back_they_are_not(workplace):
    folder, content = workplace
    rows = folder / "rows.jsonl"
    before = rows.read_text()
    rows.write_text(before.replace("one plus", "two plus"))
    with pytest.raises(RunError) as caught:
        train(load(folder, content))
    (problem,) = caught.value.problems
    assert problem.what == "this run is finished, and the rows have changed since it was trained"
    assert "put back" in problem.cure and "another output.dir" in problem.cure
    assert caught.value.exit_code == 2
    rows.write_text(before)
    assert train(load(folder, content)).was_finished
    rows.write_text(before + '{"prompt": "one more", "completion": "row"}\n')
    other = {**content, "output": {"dir": str(folder / "other")}}
    assert not train(load(folder, other)).was_finished


def test_a_changed_base_is_refused_and_an_update_of_a_library_is_named(workplace):
    folder, content = workplace
    manifest = folder / "run" / "manifest.json"
    noted = json.loads(manifest.read_text())
    noted["hashes"]["base"] = {"model.safetensors": "0"}
    noted["versions"]["torch"] = "0.1"
    manifest.write_text(json.dumps(noted))
    with pytest.raises(RunError, match=r"the base has changed since it was trained \(.*torch 0\.1, now "):
        train(load(folder, content))


def test_rows_that_cannot_be_read_any_more_are_told_as_those_of_a_finished_run(workplace):
    folder, content = workplace
    (folder / "rows.jsonl").write_text("{broken\n")
    with pytest.raises(RunError, match="what this run was trained on cannot be read any more: broken JSON"):
        train(load(folder, content))


def test_a_hub_that_is_out_of_reach_leaves_a_finished_run_alone_and_says_so(workplace, monkeypatch):
    folder, content = workplace

    def unreachable(*_, **__):
        raise RunError("the hub is out of reach")

    monkeypatch.setattr(finished_room, "prepare_training", unreachable)
    monkeypatch.setattr(finished_room, "names_a_hub", lambda recipe: True)
    result = train(load(folder, content))
    assert result.was_finished and result.note == "not compared with what was trained: the hub is out of reach"


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "weights": lambda run: flip(run.adapter / "adapter_model.safetensors"),
    "half": lambda run: (run.adapter / "adapter_model.safetensors").write_bytes(b"\x00" * 9),
    "gone": lambda run: (run.adapter / "adapter_model.safetensors").unlink(),
    "config": lambda run: (run.adapter / "adapter_config.json").unlink(),
    "tokenizer": lambda run: (run.adapter / "tokenizer.json").write_text("{"),
    "no tokenizer": lambda run: (run.adapter / "tokenizer.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_adapter_is_written_anew_by_the_command_that_its_error_names(workplace, damage):
    folder, _ = workplace
    run = RunDir(folder / "run")
    before = json.loads(run.summary.read_text())
    DAMAGE[damage](run)
    with pytest.raises(RunError) as caught:
        open_run(run.root)
    assert f"`fledge train {run.recipe}`" in caught.value.problems[0].cure
    result = train(load_saved(run))
    assert not result.was_finished
    assert open_run(run.root).adapter_sha256 == before["adapter_file_sha256"]
    assert any("damaged" in event.get("text", "") for event in read_events(run.events))
    assert train(load_saved(run)).was_finished


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", "\x00"])
def test_a_damaged_summary_is_written_anew(workplace, text):
    folder, content = workplace
    run = RunDir(folder / "run")
    before = json.loads(run.summary.read_text())
    run.summary.write_text(text)
    assert not train(load(folder, content)).was_finished
    assert json.loads(run.summary.read_text())["adapter_sha256"] == before["adapter_sha256"]


def load_saved(run):
    from fledge.config.load import load_recipe

    return load_recipe(run.recipe)
