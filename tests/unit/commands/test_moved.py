"""A base is the same by the hash of its weights, wherever it lies and whatever it is called."""

import json
import shutil

import pytest
from huggingface_hub import constants

from fledge.commands.evaluate import evaluate
from fledge.commands.export import source_of
from fledge.commands.generate import generate
from fledge.commands.manifest import base_digest, hub_digest, is_same_base
from fledge.commands.moved import name_of_base, option_for, placed
from fledge.commands.open_run import load_tuned, open_run
from fledge.commands.opening import Opening
from fledge.commands.train import train
from fledge.config.load import load_recipe, read_recipe
from fledge.errors import ModelError, RunError
from fledge.evaluation.generate import Sampling
from fledge.rundir import RunDir, read_events
from tests.runs import load, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder

COMMIT = "0123456789" * 4
ONE, OTHER = {"a.safetensors": "1"}, {"a.safetensors": "2"}
TWO = ONE | {"b.safetensors": "1"}


@pytest.mark.parametrize(
    ("noted", "now", "is_same"),
    [
        (ONE, ONE, True),
        (ONE, OTHER, False),
        (ONE, TWO, True),
        (TWO, ONE, False),
        (ONE, ONE | {"model.safetensors": "3"}, False),
        ({"model.safetensors": "3"}, {"model.safetensors": "3"} | ONE, True),
        ({"commit": "x"} | ONE, ONE, True),
        ({"commit": "x"} | ONE, {"commit": "y"} | ONE, True),
        ({"commit": "x"} | ONE, {"commit": "x"} | OTHER, False),
        ({"commit": None}, {"commit": "x"} | ONE, True),
        ({"commit": "x"}, {"commit": "y"} | ONE, False),
        ({"commit": "x"}, ONE, False),
        ({"commit": None}, ONE, False),
        (ONE, {}, False),
        (ONE, None, False),
    ],
)
def test_two_hashes_are_of_one_base_where_the_noted_files_are_there_and_are_loaded(noted, now, is_same):
    assert is_same_base(noted, now) is is_same


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of a run, and of its base in another place."""
    shutil.copytree(trained_run("llama"), tmp_path / "run")
    shutil.copytree(trained_run("llama").parent / "base", tmp_path / "base")
    return RunDir(tmp_path / "run")


def change(path, **changes):
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | changes))


def test_the_recipe_keeps_its_own_place_where_the_option_is_not_given(run, tmp_path):
    opened = open_run(run.root)
    assert opened.base_name == opened.recipe.model.name_or_path != str(tmp_path / "base")
    assert option_for(opened.recipe, run) == ""
    moved = open_run(run.root, base_path=tmp_path / "base")
    assert moved.base_name == moved.recipe.model.name_or_path == str(tmp_path / "base")
    assert option_for(moved.recipe, run) == f" --base-path {tmp_path / 'base'}"


def test_a_relative_path_starts_from_the_working_directory(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_run("run", base_path="./base").base_name == str(tmp_path / "base")


def test_the_base_itself_and_other_functions_take_it(run, tmp_path):
    short = Sampling(2)
    here, there = (
        generate(run.root, "two plus", sampling=short, opening=Opening(base_path=path))
        for path in (None, tmp_path / "base")
    )
    assert here == there
    untuned = generate(
        run.root, "two plus", sampling=short, use_base=True, opening=Opening(base_path=tmp_path / "base")
    )
    assert untuned.prompt == here.prompt
    assert evaluate(run.root, opening=Opening(base_path=tmp_path / "base")).tuned == evaluate(run.root).tuned


def test_train_takes_the_recipe_with_the_base_by_either_name(run, tmp_path):
    there = f"output.dir={run.root}"
    with pytest.raises(RunError, match=rf"in another place, add --base-path {tmp_path / 'base'}"):
        train(load_recipe(run.recipe, [there, f"model.name_or_path={tmp_path / 'base'}"]))
    for settings in ([there], [there, f"model.name_or_path={tmp_path / 'base'}"]):
        assert train(load_recipe(run.recipe, settings), base_path=tmp_path / "base").was_finished


def test_where_no_hash_was_noted_it_is_said(run, tmp_path):
    run.manifest.unlink()
    opened = open_run(run.root, base_path=tmp_path / "base")
    assert opened.notices == (
        f"whether {tmp_path / 'base'} holds the base that this run was trained on cannot be told: "
        f"{run.manifest} is not there or does not say",
    )
    assert not open_run(run.root).notices


@pytest.mark.parametrize("commit", [None, "0" * 40])
def test_a_hub_run_of_an_older_fledge_which_noted_no_files_is_refused(run, tmp_path, commit):
    recipe = run.recipe.read_text()
    run.recipe.write_text(recipe.replace(str(read_recipe(run.recipe).model.name_or_path), "org/name"))
    manifest = json.loads(run.manifest.read_text())
    change(run.manifest, hashes=manifest["hashes"] | {"base": {"commit": commit}})
    with pytest.raises(RunError, match=r"(?s)noted no hash of it.*leave --base-path out: the recipe names org/name"):
        open_run(run.root, base_path=tmp_path / "base")


def test_what_is_no_folder_and_no_base_is_told_by_the_option(run, tmp_path):
    (tmp_path / "file").write_text("")
    for name, told in (("nowhere", "there is no such folder"), ("file", "this is a file")):
        with pytest.raises(RunError, match=f"--base-path {tmp_path / name}: {told}"):
            open_run(run.root, base_path=tmp_path / name)
    with pytest.raises(ModelError, match="this is an adapter, not a base"):
        open_run(run.root, base_path=run.adapter)


def test_a_missing_file_of_the_weights_is_named(run, tmp_path):
    (tmp_path / "base" / "model.safetensors").rename(tmp_path / "base" / "model-00001-of-00002.safetensors")
    with pytest.raises(RunError, match=r"it lacks model\.safetensors"):
        open_run(run.root, base_path=tmp_path / "base")


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    """A base in the hub's cache, and a hub out of reach."""
    cache = tmp_path / "cache"
    folder = cache / "models--org--tiny"
    tiny_folder("llama", folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder / "snapshots" / COMMIT


def test_a_run_on_a_hub_id_notes_its_files_and_opens_with_a_local_copy(on_hub, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", count=16)
    result = train(load(tmp_path / "r", recipe_dict("org/tiny", rows, tmp_path / "run", train__max_steps=1)))
    run = RunDir(result.run)
    noted = json.loads(run.manifest.read_text())["hashes"]["base"]
    assert noted == {"commit": COMMIT} | base_digest(str(on_hub)) == hub_digest("org/tiny", revision="main")
    load_tuned(open_run(run.root))
    copy = shutil.copytree(on_hub, tmp_path / "copy")
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    opened = open_run(run.root, base_path=copy)
    assert opened.recipe.model.name_or_path == str(copy)
    assert opened.base_name == source_of(opened, "last").base_name == "org/tiny", "a hub id stays the base's name"
    load_tuned(opened)
    assert train(read_recipe(run.recipe), base_path=copy).was_finished
    with pytest.raises(RunError, match="has another hash"):
        open_run(run.root, base_path=tiny_folder("llama", tmp_path / "other", seed=1))
    (on_hub / "model.safetensors").unlink()
    shutil.copy(tmp_path / "other" / "model.safetensors", on_hub / "model.safetensors")
    with pytest.raises(RunError, match="the base org/tiny has changed since"):
        load_tuned(open_run(run.root))


def test_a_hub_run_that_goes_on_with_a_local_copy_keeps_the_hubs_name(on_hub, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", count=16)
    content = recipe_dict("org/tiny", rows, tmp_path / "run", train__max_steps=2, train__save_every_steps=1)
    run = RunDir(train(load(tmp_path / "r", content)).run)
    wanted = json.loads(run.summary.read_text())["adapter_sha256"]
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoint(2))
    run.summary.unlink()
    manifest = run.manifest.read_text()
    copy = shutil.copytree(on_hub, tmp_path / "copy")
    result = train(read_recipe(run.recipe), base_path=copy)
    assert result.summary["adapter_sha256"] == wanted
    assert [event["from_step"] for event in read_events(run.events) if event["event"] == "resumed"] == [1]
    assert json.loads((run.adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/tiny"
    assert read_recipe(run.recipe).model.name_or_path == "org/tiny" and run.manifest.read_text() == manifest
    assert name_of_base(placed(read_recipe(run.recipe), run, base_path=copy), run) == "org/tiny"


def test_a_recipe_whose_base_is_gone_names_the_option_where_its_run_has_begun(run, tmp_path):
    content = recipe_dict(tmp_path / "gone", tmp_path / "run", run.root)
    for output, is_named in ((run.root, True), (tmp_path / "none", False)):
        content["output"]["dir"] = str(output)
        with pytest.raises(Exception, match="there is no") as caught:
            load_recipe(write_recipe(tmp_path / "recipe.yaml", content))
        assert (
            f"if the base of the run in {output} was moved, add --base-path FOLDER" in str(caught.value)
        ) == is_named
