"""A folder that cannot be used is refused with what is there, and with cures that work as they are written."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from fledge.cli.main import run as fledge
from fledge.commands.ownership import settled_recipe
from fledge.commands.train import train
from fledge.config.dump import dump_recipe
from fledge.config.load import load_recipe
from fledge.config.recipe import Recipe
from fledge.errors import Problem, RunError
from fledge.rundir import RunDir, locked, new_place, write_text
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl")
    return tmp_path


def recipe_of(place: Path, **changes) -> Recipe:
    return load(place, recipe_dict("builtin:nestling", place / "rows.jsonl", place / "run", **changes))


def begun(place: Path, **changes) -> RunDir:
    """A run folder with a recipe in it and nothing else."""
    run = RunDir(place / "run")
    write_text(run.recipe, dump_recipe(recipe_of(place, **changes)))
    return run


def refused(recipe: Recipe, run: RunDir) -> Problem:
    with pytest.raises(RunError) as caught:
        settled_recipe(recipe, run)
    (problem,) = caught.value.problems
    return problem


def test_options_that_differ_are_written_as_yaml_and_one_by_one(place):
    begun(place, data__validation={"fraction": 0.25})
    recipe = recipe_of(place, lora__use_dora=True, lora__target_modules=["q_proj", "v_proj"])
    problem = refused(recipe, RunDir(place / "run"))
    apart = problem.what.partition("than this one: ")[2].split("; ")
    assert apart == [
        "data.validation is {fraction: 0.25} there and null here",
        "lora.target_modules is all-linear there and [q_proj, v_proj] here",
        "lora.use_dora is false there and true here",
    ]
    assert "None" not in problem.what and "True" not in problem.what


def test_of_a_source_the_options_that_differ_are_named_alone(place):
    sources = [{"path": str(place / "rows.jsonl"), "format": "completion"} for _ in range(2)]
    run = begun(place, data__train=sources)
    problem = refused(recipe_of(place, data__train=[sources[0], {**sources[1], "weight": 2.0}]), run)
    assert problem.what.endswith("this one: data.train.1.weight is 1.0 there and 2.0 here")
    (place / "run" / "recipe.yaml").unlink()
    run = begun(place)
    problem = refused(recipe_of(place, data__train={**sources[0], "prompt_prefix": "Q: "}), run)
    assert re.search(r'this one: data\.train\.prompt_prefix is .* there and "Q: " here$', problem.what)


def test_the_cures_of_another_recipe_are_a_setting_and_a_command_that_are_taken(place):
    run = begun(place)
    problem = refused(recipe_of(place, lora__r=8), run)
    setting, command = re.fullmatch(
        r"to train this recipe, add (.*); to go on with that run, `(.*)`", problem.cure
    ).groups()
    (place / "mine.yaml").write_text(dump_recipe(recipe_of(place, lora__r=8)))
    moved = load_recipe(place / "mine.yaml", shlex.split(setting))
    assert settled_recipe(moved, RunDir(Path(moved.output.dir))).lora.r == 8
    assert shlex.split(command) == ["fledge", "train", str(run.recipe)]
    assert settled_recipe(load_recipe(Path(shlex.split(command)[2]), ()), run).lora.r == 4


def test_of_a_finished_run_the_other_cure_trains_its_adapter_on(place):
    base = tiny_folder("llama", place / "base")
    content = recipe_dict(base, place / "rows.jsonl", place / "run", train__max_steps=1)
    train(load(place, content))
    content["train"]["max_steps"] = 2
    with pytest.raises(RunError) as caught:
        train(load(place, content))
    (problem,) = caught.value.problems
    assert problem.what.endswith("than this one: train.max_steps is 1 there and 2 here")
    anew, further = re.fullmatch(
        r"to train this recipe, add (.*); to train its adapter on, add (.*)", problem.cure
    ).groups()
    for settings in (anew, further):
        assert fledge(["train", str(place / "recipe-under-test.yaml"), *shlex.split(settings)]) == 0
        shutil.rmtree(place / "run-2")


def test_files_of_others_are_named(place):
    run = RunDir(place / "run")
    run.root.mkdir()
    for name in ("notes.txt", "b", "c", "d", ".hidden"):
        (run.root / name).write_text("mine")
    problem = refused(recipe_of(place), run)
    assert problem.what == "this folder holds files that are no run's: b, c, d and 1 more"
    assert problem.cure == f"add output.dir={place / 'run-2'}, or remove what lies there"
    (run.root / "d").unlink()
    assert refused(recipe_of(place), run).what.endswith(": b, c, notes.txt")


def test_a_new_place_is_not_there_yet_and_is_quoted_for_the_shell(tmp_path):
    (tmp_path / "my run-2").mkdir()
    assert shlex.split(new_place(tmp_path / "my run")) == [f"output.dir={tmp_path / 'my run-3'}"]


def test_a_folder_that_another_process_holds_says_what_to_do(tmp_path):
    with locked(tmp_path / "run"), pytest.raises(RunError) as caught, locked(tmp_path / "run"):
        pass
    (problem,) = caught.value.problems
    assert problem.cure.endswith(f"run the same command again; or add output.dir={tmp_path / 'run-2'}")
