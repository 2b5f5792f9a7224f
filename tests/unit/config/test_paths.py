"""What a recipe names is found from the recipe's folder, or told with the nearest thing that is there."""

import os
from pathlib import Path

import pytest

from fledge.config.data import DataConfig, SourceConfig
from fledge.config.load import load_recipe
from fledge.config.model import ModelConfig
from fledge.config.paths import BUILTIN_BASES, CHAT_TEMPLATES
from fledge.config.recipe import Recipe, sources
from fledge.errors import RecipeError
from fledge.models.load_tokenizer import load_tokenizer
from fledge.models.locate import BUILTIN
from tests.tiny_models import tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "my recipes"
    (inside / "data").mkdir(parents=True)
    for name in ("data/a.jsonl", "data/b.jsonl.gz", "[odd].json", "README"):
        (inside / name).write_text("{}")
    (inside / "base").mkdir()
    (inside / "base" / "config.json").write_text("{}")
    return inside


def load(folder: Path, path: str = "data/a.jsonl", base: str = "builtin:nestling", *overrides: str) -> Recipe:
    recipe = folder / "r.yaml"
    recipe.write_text("model: {}\ndata: {train: {format: text}}\n")
    return load_recipe(recipe, [f"data.train.path='{path}'", f"model.name_or_path='{base}'", *overrides])


LOCAL = ["data/a.jsonl", "./data/b.jsonl.gz", "../my recipes/data", "[odd].json", "README", "data"]


@pytest.mark.parametrize("path", LOCAL)
def test_what_exists_beside_the_recipe_is_local_wherever_the_process_runs(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (source,) = sources(load(folder, path).data.train)
    assert source.path == os.path.normpath(folder / path)


def test_a_glob_starts_from_the_recipes_folder(folder: Path) -> None:
    (source,) = sources(load(folder, "data/*.jsonl*").data.train)
    assert source.path == str(folder / "data" / "*.jsonl*")


def test_home_is_unfolded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (source,) = sources(load(folder, "~/data/a.jsonl").data.train)
    assert source.path == str(folder / "data" / "a.jsonl")


@pytest.mark.parametrize("hub_id", ["tatsu-lab/alpaca", "squad", "mlabonne/guanaco-llama2-1k", "a/b.c_d-e"])
def test_a_hub_id_is_left_as_it_is(folder: Path, hub_id: str) -> None:
    recipe = load(folder, hub_id, hub_id)
    assert (sources(recipe.data.train)[0].path, recipe.model.name_or_path) == (hub_id, hub_id)


MISSING = {
    "data/c.jsonl": "did you mean data/a.jsonl?",
    "dta/a.jsonl": "did you mean data?",
    "./nothing": "there is no ./nothing",
    "/nowhere/at/all": "there is no /nowhere/at/all",
    "data/*.csv": "no file matches data/*.csv",
    "a/b/c": "neither an existing path nor a hub id",
    "-x": "neither an existing path nor a hub id",
    "a b": "neither an existing path nor a hub id",
    "https://example.org/x": "fetch the file yourself, and give its path",
    "https://huggingface.co/datasets/tatsu-lab/alpaca": "write tatsu-lab/alpaca",
    "https://huggingface.co/gpt2/tree/main": "write gpt2",
    "gpt2 ": "write gpt2",
    "folder/": "there is no folder/",
    "rows.xlsx": "there is no rows.xlsx",
    "x" * 5000: "cannot be looked up",
    "~nobody_at_all/x": "cannot be looked up",
    "data/**.jsonl": "** stands alone between slashes: data/**/*.jsonl",
    "a**/b": "a**/b is no glob",
}


@pytest.mark.parametrize(("path", "what"), MISSING.items())
def test_what_is_not_there_is_told_with_the_nearest_name(folder: Path, path: str, what: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(folder, path)
    (problem,) = caught.value.problems
    assert what in str(problem)


@pytest.mark.parametrize("key", ["output.dir", "data.train.path", "model.name_or_path", "data.chat_template"])
@pytest.mark.parametrize("escape", ["\\0", "\\n", "\\x7f", "\\x85"])
def test_no_path_holds_a_control_character(folder: Path, key: str, escape: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(folder, "data/a.jsonl", "base", f'{key}="a{escape}b"')
    (problem,) = caught.value.problems
    assert "holds a control character" in problem.what


def test_names_that_config_knows_are_those_that_lower_rooms_take(tmp_path: Path) -> None:
    assert {f"builtin:{name}" for name in BUILTIN_BASES} == set(BUILTIN)
    base = ModelConfig(name_or_path=str(tiny_folder("llama", tmp_path / "base")))
    source = SourceConfig(path="x", format="chat")
    assert CHAT_TEMPLATES
    for name in CHAT_TEMPLATES:
        assert load_tokenizer(base, DataConfig(train=source, chat_template=name)).has_chat_template


BASES = {
    "builtin:sparrow": "there is: builtin:nestling",
    "./bas": "did you mean base?",
    "data": "holds no config.json",
    "README": "README is a file",
    "a//b": "neither an existing path nor a hub id",
}


@pytest.mark.parametrize(("base", "what"), BASES.items())
def test_a_base_that_is_not_there_is_told(folder: Path, base: str, what: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(folder, "data/a.jsonl", base)
    assert what in str(caught.value)


def test_a_local_base_becomes_absolute(folder: Path) -> None:
    assert load(folder, "data/a.jsonl", "base").model.name_or_path == str(folder / "base")


def test_the_run_folder_is_beside_the_recipe(folder: Path) -> None:
    assert load(folder).output.dir == str(folder / "runs" / "r")
    assert load(folder, "data/a.jsonl", "base", "output.dir=../x").output.dir == str(folder.parent / "x")


def test_a_run_folder_that_cannot_be_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="is a file, so no run folder can be there"):
        load(folder, "data/a.jsonl", "base", "output.dir=README/run")
    if os.geteuid():
        folder.joinpath("locked").mkdir(mode=0o500)
        with pytest.raises(RecipeError, match="cannot be written"):
            load(folder, "data/a.jsonl", "base", "output.dir=locked/run")


def test_a_chat_template_is_a_known_name_or_a_file(folder: Path) -> None:
    assert load(folder, "data/a.jsonl", "base", "data.chat_template=chatml").data.chat_template == "chatml"
    assert load(folder, "data/a.jsonl", "base", "data.chat_template=README").data.chat_template == str(
        folder / "README"
    )
    with pytest.raises(RecipeError, match="did you mean chatml"):
        load(folder, "data/a.jsonl", "base", "data.chat_template=chat_ml")
