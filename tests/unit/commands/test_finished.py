"""A finished run is left alone where nothing has changed, mended where it is damaged, and refused other rows."""

import json
import shutil
import subprocess

import pytest

from fledge.commands import finished as finished_room
from fledge.commands import train as train_room
from fledge.commands.open_run import open_run
from fledge.commands.train import train
from fledge.errors import RunError
from fledge.rundir import RunDir, read_events, read_steps
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
    assert "put back" in problem.cure and f"or add output.dir={folder / 'run-2'}" in problem.cure
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


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flag(run):
    """One switch of the tokenizer's rules is the other way round."""
    path = run.adapter / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["added_tokens"][0]["lstrip"] = not rules["added_tokens"][0]["lstrip"]
    path.write_text(json.dumps(rules))


def unknown(run):
    """The library raises Exception itself for this."""
    path = run.adapter / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": {"type": "Unheard", "vocab": {}}}))


DAMAGE = {
    "a flag": flag,
    "unknown type": unknown,
    "template": lambda run: (run.adapter / "chat_template.jinja").write_text("{{ messages }}"),
    "eos": lambda run: change(run.adapter / "tokenizer_config.json", eos_token="<s>"),
    "no settings": lambda run: (run.adapter / "adapter_config.json").write_text("{}"),
    "torn settings": lambda run: (run.adapter / "adapter_config.json").write_text("{"),
    "no object": lambda run: (run.adapter / "adapter_config.json").write_text("[]"),
    "alpha": lambda run: change(run.adapter / "adapter_config.json", lora_alpha=80),
    "stops": lambda run: change(run.adapter / "generation_config.json", eos_token_id=[3]),
    "torn stops": lambda run: (run.adapter / "generation_config.json").write_text("{"),
    "folder": lambda run: shutil.rmtree(run.adapter),
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
    events = len(read_steps(run.events))
    result = train(load_saved(run))
    assert not result.was_finished and len(read_steps(run.events)) == events
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


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"hashes": {}}'])
def test_a_broken_manifest_is_told_and_the_cure_goes_further(text, workplace):
    folder, content = workplace
    run = RunDir(folder / "run")
    run.manifest.write_text(text)
    for damage in (lambda: None, lambda: flip(run.adapter / "adapter_model.safetensors")):
        damage()
        with pytest.raises(RunError, match=r"manifest.json: (.|\n)*cannot be read(.|\n)*or remove it"):
            train(load(folder, content))
    run.manifest.unlink()
    assert not train(load(folder, content)).was_finished
    assert train(load(folder, content)).was_finished


def refused(run, match):
    """What training a finished run says that cannot be mended; nothing is written."""
    before = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=match) as caught:
        train(load_saved(run))
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == before
    return caught.value.problems[0].cure


def spoil_last_checkpoint(run):
    (run.checkpoint(6) / "weights.safetensors").write_bytes(b"12345678")


LOSSES = {
    "its checkpoints are gone": lambda run: shutil.rmtree(run.checkpoints),
    "its last checkpoint is of step 4 and it was trained to step 6": lambda run: shutil.rmtree(run.checkpoint(6)),
    "lack checkpoints/step-6/optimizer": lambda run: (run.checkpoint(6) / "optimizer.safetensors").unlink(),
    "lack checkpoints/step-6/weights": spoil_last_checkpoint,
    "state.json": lambda run: (run.checkpoint(6) / "state.json").write_text("{}"),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("damage", ["weights", "a flag", "summary"])
def test_a_damaged_run_without_its_last_checkpoint_is_never_trained_again(loss, damage, workplace):
    folder, _ = workplace
    run, before = RunDir(folder / "run"), folder / "before"
    shutil.copytree(run.root, before)
    DAMAGE[damage](run) if damage != "summary" else run.summary.write_text("{")
    LOSSES[loss](run)
    cure = refused(run, loss)
    with pytest.raises(RunError) as caught:
        open_run(run.root)
    assert "writes it anew" not in caught.value.problems[0].cure
    if "mkdir" in cure:
        assert "step-6/adapter" in cure and damage != "summary"
        subprocess.run(cure.split("`")[1], shell=True, check=True)
    else:
        assert f"add output.dir={folder / 'run-2'}" in cure
        shutil.copytree(before, run.root, dirs_exist_ok=True)
    assert train(load_saved(run)).was_finished


def test_a_summary_that_tells_no_end_lets_nothing_be_trained_either(workplace):
    folder, _ = workplace
    run = RunDir(folder / "run")
    run.summary.write_text("{")
    run.events.write_text("")
    shutil.rmtree(run.checkpoint(6))
    with pytest.raises(RunError, match="its last checkpoint is of step 4: nothing is trained again"):
        train(load_saved(run))
    assert run.checkpoint_steps() == [4]


def test_a_checkpoint_that_gives_another_adapter_is_not_believed(workplace):
    folder, _ = workplace
    run = RunDir(folder / "run")
    shutil.rmtree(run.adapter)
    flip(run.checkpoint(6) / "weights.safetensors")
    with pytest.raises(RunError, match="give another adapter than was noted then: nothing was written"):
        train(load_saved(run))
    assert not run.adapter.exists()


def test_a_run_that_stopped_early_needs_its_best_weights_and_gives_the_adapter_from_beside_them(workplace):
    folder, content = workplace
    rows = folder / "rows.jsonl"
    settings = {"every_steps": 1, "early_stopping_patience": 2}
    content |= {"evaluate": settings, "output": {"dir": str(folder / "early")}}
    content["data"] = content["data"] | {"validation": {"path": str(rows), "format": "completion"}}
    content["train"] = content["train"] | {"max_steps": 30, "learning_rate": 0.3}
    summary = train(load(folder, content)).summary
    assert summary["adapter_step"] < summary["steps"]
    run = RunDir(folder / "early")
    flip(run.adapter / "adapter_model.safetensors")
    assert train(load_saved(run)).summary["adapter_sha256"] == summary["adapter_sha256"]
    flip(run.adapter / "adapter_model.safetensors")
    (run.best / "weights.safetensors").unlink()
    cure = refused(run, "lack checkpoints/best/weights.safetensors")
    with pytest.raises(RunError) as caught:
        open_run(run.root)
    assert caught.value.problems[0].cure.endswith(cure.partition(", or ")[2])
    subprocess.run(cure.split("`")[1], shell=True, check=True)
    assert train(load_saved(run)).was_finished and open_run(run.root).adapter_sha256 == summary["adapter_file_sha256"]


def test_a_run_of_an_older_version_has_fewer_notes_and_is_whole(workplace):
    folder, content = workplace
    run = RunDir(folder / "run")
    summary = json.loads(run.summary.read_text())
    for name in ("settings_sha256", "adapter_file_sha256"):
        del summary[name]
        run.summary.write_text(json.dumps(summary))
        assert train(load(folder, content)).was_finished
    (run.adapter / "adapter_config.json").write_text("{}")
    assert not train(load(folder, content)).was_finished
    assert open_run(run.root)


def load_saved(run):
    from fledge.config.load import load_recipe

    return load_recipe(run.recipe)
