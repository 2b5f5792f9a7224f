"""Settings of the command line reach every option, and say so when they do not."""

import shlex
from pathlib import Path

import pytest

from fledge.config.load import load_recipe
from fledge.config.recipe import Recipe, sources
from fledge.errors import RecipeError

TEXT = """\
model: {name_or_path: builtin:nestling}
data:
  train:
    - {path: rows.jsonl, format: alpaca}
    - {path: rows.jsonl, format: text}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "other.jsonl").write_text("{}\n")
    (tmp_path / "recipe.yaml").write_text(TEXT)
    return tmp_path / "recipe.yaml"


def load(path: Path, *overrides: str) -> Recipe:
    return load_recipe(path, overrides)


def test_values_are_read_as_yaml(recipe: Path) -> None:
    loaded = load(
        recipe,
        "train.learning_rate=1e-4",
        "lora.target_modules=[q_proj, v_proj]",
        "train.gradient_checkpointing=false",
        "train.max_grad_norm=null",
        "data.train.0.weight=2",
    )
    assert loaded.train.learning_rate == 1e-4
    assert loaded.lora.target_modules == ("q_proj", "v_proj")
    assert loaded.train.gradient_checkpointing is False
    assert loaded.train.max_grad_norm is None
    assert [source.weight for source in sources(loaded.data.train)] == [2.0, 1.0]


def test_a_source_of_a_list_is_set_by_its_position(recipe: Path) -> None:
    loaded = load(recipe, "data.train.1.path=other.jsonl")
    assert sources(loaded.data.train)[1].path == str(recipe.parent / "other.jsonl")


def test_a_section_that_is_not_there_is_made(recipe: Path) -> None:
    assert load(recipe, "data.validation.fraction=0.5").data.validation is not None


def test_a_whole_section_is_replaced(recipe: Path) -> None:
    loaded = load(recipe, "data.train={path: other.jsonl, format: text}")
    assert len(sources(loaded.data.train)) == 1


def test_the_last_of_two_settings_counts(recipe: Path) -> None:
    assert load(recipe, "train.seed=1", "train.seed=2").train.seed == 2


def test_a_setting_mends_a_value_of_the_file(recipe: Path) -> None:
    for wrong in ("x", "017", "!thing 3", '"\\ud83d"'):
        recipe.write_text(TEXT + f"train: {{seed: {wrong}}}\n")
        with pytest.raises(RecipeError):
            load(recipe)
        assert load(recipe, "train.seed=3").train.seed == 3
        assert load(recipe, "train={seed: 3}").train.seed == 3


def test_a_setting_that_is_wrong_itself_does_not_mend_the_file(recipe: Path) -> None:
    recipe.write_text(TEXT + "train: {seed: 017}\n")
    with pytest.raises(RecipeError) as caught:
        load(recipe, "train.seed=018", "train.max_steps=2")
    assert [problem.where.rpartition("/")[2] for problem in caught.value.problems] == [
        "recipe.yaml:6",
        "command line: train.seed=018",
    ]


SPLIT = {
    ("data.validation={fraction:", "0.1}"): "write 'data.validation={fraction: 0.1}'",
    ("lora.target_modules=[q_proj,", "v_proj]"): "write 'lora.target_modules=[q_proj, v_proj]'",
    ("train.seed", "=", "3"): "write train.seed=3",
    ("train.seed=", "3"): "write train.seed=3",
}


@pytest.mark.parametrize(("arguments", "cure"), SPLIT.items())
def test_what_the_shell_has_split_is_put_together_again(recipe: Path, arguments: tuple[str, ...], cure: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe, *arguments)
    (problem,) = caught.value.problems
    assert (problem.what, problem.cure) == ("the shell has split this setting at its spaces", cure)
    load(recipe, *shlex.split(cure.removeprefix("write ")))


WRITTEN_OTHERWISE = {
    "--train.seed=3": "write train.seed=3",
    "train.seed: 3": "write train.seed=3",
    "train.seed:3": "write train.seed=3",
    "train.seed==3": "write train.seed=3",
    "'train.seed=3'": "write train.seed=3",
    "train.seed": "write train.seed=VALUE",
    "train/seed=3": "did you mean train.seed?",
    "other.yaml": "one recipe is trained at a time; write settings as key.path=value",
    "data.train.path=other.jsonl": "write data.train.0.path=... (positions count from 0; the last one is 1)",
    "model.0.dtype=float32": "write model.dtype=... without 0",
    "lora.target_modules=q_proj,v_proj": "write [q_proj, v_proj]",
    "output.trackers=wandb": "write a list: [wandb]",
}


@pytest.mark.parametrize(("override", "cure"), WRITTEN_OTHERWISE.items())
def test_a_setting_that_is_written_otherwise_is_answered_by_how_it_is_written(
    recipe: Path, override: str, cure: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe, override)
    assert [problem.cure for problem in caught.value.problems] == [cure]


WRONG = {
    "foo": "not a setting",
    "=3": "not a setting",
    "train..seed=3": "not a setting",
    "data.train.2.path=x.jsonl": "data.train is a list of 2",
    "data.train.path=x.jsonl": "data.train is a list of 2",
    "data.train.0={}": "an item of a list is not set alone",
    "model.name_or_path.x=1": "model.name_or_path is a value and has no option x",
    "model.0=1": "model is not a list",
    "0.a=1": "the recipe is not a list",
    "train.seed=[": "not valid YAML",
    "train.seed=1: 2: 3": "not valid YAML",
    "train.sed=1": "did you mean seed?",
    "tran.seed=1": "did you mean train?",
}


@pytest.mark.parametrize(("override", "what"), WRONG.items())
def test_a_wrong_setting_is_told_as_of_the_command_line(recipe: Path, override: str, what: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe, override)
    (problem,) = caught.value.problems
    assert what in str(problem)
    assert problem.where.startswith("command line: ")
