"""A run and its base were moved: every verb that opens the run finds the base by --base-path, and refuses another."""

import io
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from fledge.cli.main import run as fledge
from fledge.commands.train import train
from fledge.config.load import read_recipe
from tests.hub_server import serving
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder

TOKEN = "hf_" + "notarealone" * 3
VERBS = ("evaluate", "generate", "chat", "export", "push", "train")


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    """A folder with a base, rows and a finished run."""
    folder = tmp_path_factory.mktemp("before")
    rows = write_rows(folder / "rows.jsonl", count=24)
    changes = {"data__validation": {"path": str(rows), "format": "completion"}, "train__max_steps": 4}
    train(load(folder, recipe_dict(tiny_folder("llama", folder / "base"), rows, folder / "run", **changes)))
    return folder


@pytest.fixture
def place(before, tmp_path) -> Path:
    """The same in another folder, run and base renamed: what the run's recipe names is gone, but the rows."""
    folder = tmp_path / "it's here"
    shutil.copytree(before / "run", folder / "my run")
    shutil.copytree(before / "base", folder / "a base")
    recipe = folder / "my run" / "recipe.yaml"
    gone = recipe.read_text().replace(str(before / "base"), str(folder / "gone" / "base"))
    recipe.write_text(gone.replace(str(before / "run"), str(folder / "gone" / "run")))
    return folder


def commands(place: Path) -> dict[str, list[str]]:
    """Each verb on the run."""
    run = str(place / "my run")
    return {
        "evaluate": ["evaluate", run],
        "generate": ["generate", run, "--prompt", "two plus two =", "--max-new-tokens", "2"],
        "chat": ["chat", run, "--max-new-tokens", "2"],
        "export": ["export", run, str(place / "out"), "--to", "adapter"],
        "push": ["push", run, "ada/moved", "--to", "adapter"],
        "train": ["train", f"{run}/recipe.yaml", f"output.dir={json.dumps(run)}"],
    }


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as server:
        server.add_user("ada", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(autouse=True)
def _one_line_to_say(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("karen\n"))


def test_every_verb_works_with_the_option_and_the_runs_recipe_stays(place, hub, capsys):
    recipe, base = place / "my run" / "recipe.yaml", str(place / "a base")
    text = recipe.read_text()
    said = {}
    for verb, command in commands(place).items():
        assert fledge([*command, "--base-path", base]) == 0, (verb, capsys.readouterr().err)
        said[verb] = capsys.readouterr().out
    assert "this run is finished; nothing was done" in said["train"]
    assert recipe.read_text() == text
    assert not (place / "gone").exists(), "nothing is written where the run lay"
    written = json.loads((place / "out" / "adapter_config.json").read_text())
    own = json.loads((place / "my run" / "adapter" / "adapter_config.json").read_text())
    assert written == {name: value for name, value in own.items() if name != "revision"} | {
        "base_model_name_or_path": None
    }, "a folder of this machine is no base for others"
    assert json.loads((place / "out" / "certificate.json").read_text())["base"]["name"] == base
    pushed = hub.repos["ada/moved"]
    sent = pushed.commits[pushed.branches["main"]]
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] is None


@pytest.mark.parametrize("verb", VERBS)
def test_without_it_the_cure_names_it_and_another_base_is_refused(verb, place, hub, capsys):
    command = commands(place)[verb]
    shutil.copytree(place / "a base", place / "gone" / "elsewhere")
    assert fledge(command) in (1, 2)
    assert "--base-path FOLDER" in capsys.readouterr().err
    weights = load_file(place / "a base" / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, place / "a base" / "model.safetensors", metadata={"format": "pt"})
    assert fledge([*command, "--base-path", str(place / "a base")]) in (1, 2)
    told = capsys.readouterr().err
    assert f"--base-path {place / 'a base'}: this is not the base that the run in" in told
    assert "model.safetensors has another hash" in told
    assert fledge([*command, "--base-path", str(place / "nowhere")]) in (1, 2)
    assert "there is no such folder" in capsys.readouterr().err
    assert fledge([*command, "--base-path", str(place / "my run")]) in (1, 2)
    assert "this is a run folder, not a base" in capsys.readouterr().err
    assert not (place / "out").exists() and not list(place.glob("my run/exports/[!.]*"))


def test_a_base_that_moved_along_with_its_run_is_named_in_the_cure(place, capsys):
    (place / "gone" / "base").parent.mkdir()
    shutil.move(place / "a base", place / "base")
    assert fledge(commands(place)["generate"]) == 2
    cure = capsys.readouterr().err.splitlines()[-1].strip()
    option, _, rest = cure.partition(" --base-path ")
    assert (option, rest.partition(": ")[2]) == ("add", "the same base lies there")
    assert rest.startswith("'") and str(place / "base").replace("'", "'\"'\"'") in rest, "quoted for the shell"


def test_a_stopped_run_goes_on_with_it_to_the_same_bits(before, place, capsys):
    run, base = place / "my run", place / "a base"
    shutil.rmtree(run / "adapter")
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-4")
    named = read_recipe(run / "recipe.yaml").model
    assert fledge(["generate", str(run), "--base-path", str(base)]) == 2
    told = capsys.readouterr().err
    assert "--base-path '" in told and "` goes on with it" in told
    assert fledge([*commands(place)["train"], "--base-path", str(base)]) == 0
    first, again = (json.loads((where / "summary.json").read_text()) for where in (before / "run", run))
    assert again["adapter_sha256"] == first["adapter_sha256"] and again["last_loss"] == first["last_loss"]
    name = json.loads((run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert name == str(base)
    assert read_recipe(run / "recipe.yaml").model == named


def test_a_moved_runs_own_recipe_begins_no_new_run_where_the_old_one_lay(place, capsys):
    recipe = str(place / "my run" / "recipe.yaml")
    assert fledge(["train", recipe, "--base-path", str(place / "a base")]) == 2
    told = capsys.readouterr().err
    assert "this run folder was moved" in told and "output.dir=" in told
    assert not (place / "gone").exists()


def test_a_fresh_run_is_told_to_write_the_key(before, tmp_path, capsys):
    content = recipe_dict(before / "base", before / "rows.jsonl", tmp_path / "run")
    load(tmp_path, content)
    assert fledge(["train", str(tmp_path / "recipe-under-test.yaml"), "--base-path", str(before / "base")]) == 2
    assert f"write model.name_or_path: {before / 'base'}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_rows_that_are_gone_are_told_by_their_key_and_writing_it_helps(place, tmp_path, capsys):
    recipe, base = place / "my run" / "recipe.yaml", str(place / "a base")
    text = recipe.read_text()
    rows = write_rows(tmp_path / "moved rows.jsonl", count=24)
    [old] = {line.partition("path: ")[2] for line in text.splitlines() if line.endswith("/rows.jsonl")}
    recipe.write_text(text.replace(old, str(tmp_path / "gone.jsonl")))
    assert fledge([*commands(place)["evaluate"], "--base-path", base]) == 2
    told = capsys.readouterr().err
    assert "the rows of data.train.path are not there any more" in told and "and 1 more" in told
    assert f"write where they lie now as data.train.path in {recipe}" in told
    for verb in ("generate", "chat"):
        assert fledge([*commands(place)[verb], "--base-path", base]) == 0, verb
    recipe.write_text(text.replace(old, str(rows)))
    for verb in ("evaluate", "train"):
        assert fledge([*commands(place)[verb], "--base-path", base]) == 0, (verb, capsys.readouterr().err)
    write_rows(rows, count=23)
    assert fledge([*commands(place)["evaluate"], "--base-path", base]) == 2
    assert "not those of the training any more" in capsys.readouterr().err
