"""A run folder is opened, or it is said what is wrong with it and what to do."""

import hashlib
import json
import shutil

import pytest

from fledge.commands.open_run import load_tuned, open_run
from fledge.errors import RunError
from fledge.rundir import RunDir
from tests.tiny_models import tiny_folder


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy that a test may spoil; its base is still where it was."""
    shutil.copytree(trained_run("llama"), tmp_path / "run")
    return RunDir(tmp_path / "run")


def test_a_trained_run_opens_with_its_last_and_its_best_adapter(run):
    last, best = open_run(run.root), open_run(str(run.root), which="best")
    assert (last.adapter, best.adapter) == (run.adapter, run.best)
    assert last.recipe.output.dir and last.tokenizer.stop_ids == frozenset({1})
    assert load_tuned(last).model.peft_config["default"].r == 4


def test_a_folder_that_is_no_run_is_refused_and_a_parent_that_is_one_is_named(run, tmp_path):
    with pytest.raises(RunError, match=r"not a run folder.*\n.*fledge train"):
        open_run(tmp_path)
    with pytest.raises(RunError, match=f"the run folder is {run.root}"):
        open_run(run.adapter)
    with pytest.raises(RunError, match="there is no such run folder"):
        open_run(tmp_path / "nothing")


def test_a_run_that_is_not_finished_says_where_it_stopped(run):
    shutil.rmtree(run.adapter)
    run.summary.unlink()
    with pytest.raises(RunError, match=r"it stopped after step 6(.|\n)*fledge train .*recipe.yaml"):
        open_run(run.root)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(RunError, match="has no adapter yet"):
        open_run(run.root)
    with pytest.raises(RunError, match="no best adapter"):
        open_run(run.root, which="best")


def test_what_goes_on_with_a_run_that_was_moved_names_where_it_is_now(run, trained_run):
    (run.adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(RunError) as moved:
        open_run(run.root)
    anew = f"`fledge train {run.recipe} output.dir={run.root}` writes it anew from the last checkpoint"
    assert moved.value.problems[0].cure == f"put it back from a copy, or {anew}"
    run.recipe.write_text(run.recipe.read_text().replace(str(trained_run("llama")), str(run.root)))
    with pytest.raises(RunError) as in_place:
        open_run(run.root)
    anew = f"`fledge train {run.recipe}` writes it anew from the last checkpoint"
    assert in_place.value.problems[0].cure == f"put it back from a copy, or {anew}"
    run.summary.unlink()
    shutil.rmtree(run.adapter)
    with pytest.raises(RunError) as stopped:
        open_run(run.root)
    assert stopped.value.problems[0].cure == f"`fledge train {run.recipe}` goes on with it"


@pytest.mark.parametrize("which", ["last", "best"])
def test_an_adapter_of_another_run_is_refused(which, run, trained_run):
    folder, note = (run.best, run.best / "best.json") if which == "best" else (run.adapter, run.summary)
    weights = folder / "adapter_model.safetensors"
    noted = json.loads(note.read_text()) | {"adapter_file_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    note.write_text(json.dumps(noted))
    assert open_run(run.root, which=which).adapter_sha256 == noted["adapter_file_sha256"]
    other = trained_run("llama", train__learning_rate=3e-4) / "adapter/adapter_model.safetensors"
    shutil.copyfile(other, weights)
    with pytest.raises(RunError, match="not the adapter that the run trained"):
        open_run(run.root, which=which)
    note.write_text(json.dumps({name: value for name, value in noted.items() if name != "adapter_file_sha256"}))
    assert open_run(run.root, which=which).adapter == folder, "an older run has no such note"


def test_a_tokenizer_or_a_note_that_cannot_be_read_is_told_with_a_cure(run):
    before = run.summary.read_text()
    run.summary.write_text("{")
    with pytest.raises(RunError, match=r"summary.json: (.|\n)*cannot be read(.|\n)*put back"):
        open_run(run.root)
    run.summary.write_text(before)
    (run.adapter / "tokenizer.json").write_text("{}")
    with pytest.raises(RunError, match=r"tokenizer cannot be read(.|\n)*put back"):
        open_run(run.root)


def forget(path, name):
    """A note of a run without something that older versions did not note."""
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name}))


@pytest.mark.parametrize("which", ["last", "best"])
def test_settings_of_an_adapter_are_those_of_the_training_but_for_where_the_base_lies(which, run):
    folder = run.best if which == "best" else run.adapter
    for name, change, is_fine in (
        ("adapter_config.json", {"base_model_name_or_path": "elsewhere/base", "revision": "main"}, True),
        ("adapter_config.json", {"lora_alpha": 16}, False),
        ("generation_config.json", {"eos_token_id": 7}, False),
    ):
        path = folder / name
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | change))
        if is_fine:
            open_run(run.root, which=which)
        else:
            with pytest.raises(RunError, match="other settings than were noted"):
                open_run(run.root, which=which)
        path.write_text(before)
    forget(run.summary, "settings_sha256")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(RunError, match="the settings of the adapter cannot be read"):
        open_run(run.root, which=which)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"versions": {}, "hardware": {}, "hashes": {}}'])
def test_a_broken_manifest_is_told_and_the_run_opens_once_it_is_removed(text, run):
    run.manifest.write_text(text)
    with pytest.raises(RunError, match=r"manifest.json: (.|\n)*cannot be read(.|\n)*or remove it"):
        open_run(run.root)
    run.manifest.unlink()
    assert open_run(run.root).trained_hash("data") is None


def test_an_adapter_that_lacks_a_file_or_tensors_is_refused(run, trained_run):
    config = run.adapter / "adapter_config.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | {"target_modules": ["q_proj", "embed_tokens"]}))
    with pytest.raises(RunError, match=r"not the adapter that the run trained: adapter_config.json"):
        open_run(run.root)
    forget(run.summary, "settings_sha256")  # as Fledge 0.1 left it
    with pytest.raises(Exception, match=r"not complete|does not fit"):
        load_tuned(open_run(run.root))
    config.unlink()
    with pytest.raises(RunError, match=r"lacks adapter_config.json"):
        open_run(run.root)


def test_an_adapter_of_another_base_is_refused(run, trained_run):
    (run.root / "manifest.json").unlink()
    recipe = run.recipe.read_text()
    other = trained_run("gpt2").parent / "base"
    base = trained_run("llama").parent / "base"
    run.recipe.write_text(recipe.replace(str(base), str(other)))
    with pytest.raises(RunError, match="does not fit its base"):
        load_tuned(open_run(run.root))


def test_a_base_that_changed_since_is_refused(run, tmp_path, trained_run):
    changed = tiny_folder("llama", tmp_path / "changed", seed=1)
    base = trained_run("llama").parent / "base"
    run.recipe.write_text(run.recipe.read_text().replace(str(base), str(changed)))
    with pytest.raises(RunError, match="has changed since"):
        load_tuned(open_run(run.root))


def test_a_run_opens_when_its_data_are_gone(run, trained_run):
    rows = trained_run("llama").parent / "rows.jsonl"
    run.recipe.write_text(run.recipe.read_text().replace(str(rows), str(rows.with_name("gone.jsonl"))))
    assert load_tuned(open_run(run.root)).facts.num_layers == 2
