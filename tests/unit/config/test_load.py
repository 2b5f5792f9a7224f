"""A recipe loads strictly: everything that is wrong is told at once, with its place and its cure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fledge.config.load import dump_recipe, load_recipe, read_recipe
from fledge.config.recipe import Recipe, sources
from fledge.errors import RecipeError

SHORTEST = "model: {name_or_path: builtin:nestling}\ndata:\n  train: {path: rows.jsonl, format: alpaca}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def problems_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return [str(problem).replace(str(path), "R").replace(str(path.parent), "F") for problem in caught.value.problems]


def test_the_shortest_recipe_is_complete(folder: Path) -> None:
    recipe = load_recipe(write(folder, SHORTEST))
    assert recipe.train.learning_rate == 3.0e-4
    assert recipe.lora.target_modules == "all-linear"
    assert recipe.output.dir == str(folder / "runs" / "recipe")


def test_everything_that_is_wrong_is_told_at_once_in_order_of_lines(folder: Path) -> None:
    text = """\
model:
  name_or_path: builtin:nestlin
  dtype: bfloat
  trust_remote_code: yes
data:
  train: {path: row.jsonl, formt: alpaca}
  max_length: 3.0
trian: {}
train:
  learning_rate: 5
  lr: 1e-4
  lr_scheduler: cosin
  adam_betas: [0.9]
  warmup_steps: 3
  warmup_ratio: 0.5
"""
    assert problems_of(write(folder, text), "train.max_step=3", "lora.r=0") == [
        "R:2: there is no built-in base nestlin\n    there is: builtin:nestling",
        'R:3: model.dtype is "bfloat", expected float32, bfloat16 or float16\n    did you mean bfloat16?',
        'R:4: model.trust_remote_code is "yes", expected true or false\n    write true',
        "R:6: there is no row.jsonl\n    did you mean rows.jsonl? (relative paths start from F)",
        "R:6: data.train has no option formt\n    did you mean format?",
        "R:7: data.max_length is 3.0, expected a whole number at least 8 and at most 1048576\n    write 3",
        "R:8: a recipe has no section trian\n    did you mean train?",
        "R:10: train.learning_rate is 5, expected a number above 0 and at most 1",
        "R:11: train has no option lr\n    did you mean learning_rate?",
        'R:12: train.lr_scheduler is "cosin", expected cosine, linear or constant\n    did you mean cosine?',
        "R:13: train.adam_betas is [0.9], expected a list of 2 times a number at least 0 and below 1\n"
        "    write [0.9, 0.999]",
        "command line: lora.r=0: lora.r is 0, expected a whole number at least 1 and at most 4096",
        "command line: train.max_step=3: train has no option max_step\n    did you mean max_steps?",
    ]


def test_a_conflict_is_told_together_with_a_wrong_value(folder: Path) -> None:
    text = SHORTEST + "train:\n  warmup_steps: 3\n  warmup_ratio: 0.5\n  seed: -1\n"
    assert problems_of(write(folder, text)) == [
        "R:5: train.warmup_steps: given together with warmup_ratio\n    remove it, or remove warmup_ratio",
        "R:7: train.seed is -1, expected a whole number at least 0 and below 9223372036854775808",
    ]


CONFLICTS = {
    "data.overlong=split": "split is for the text format only, and data.train has the format alpaca",
    "data.train.text_column=body": "has no effect on format alpaca",
    "data.train.prompt_prefix=Q": "has no effect on format alpaca",
    "data.train.split=test": "has no effect on a local path",
    "train.micro_batch_rows=2 train.micro_batch_tokens=64": "given together with micro_batch_tokens",
    "train.warmup_ratio=0.1 train.warmup_steps=2": "given together with warmup_ratio",
    "model.attention=flash model.dtype=float32": "flash attention does not compute in float32",
    "model.keep_dequantized=true": "has no effect on a base that is not quantised",
    "model.quantization=nf4 lora.init_lora_weights=pissa": "which a quantised base does not give",
    "evaluate.exact_match=true": "needs data.validation",
    "evaluate.exact_match=true data.validation.fraction=0.1 data.train.format=text": "plain text has no prompt",
    "evaluate.rouge=true": "evaluate.rouge: needs data.validation",
    "evaluate.rouge=true data.validation.fraction=0.1 data.train.format=text": "plain text has no prompt",
    "lora.use_dora=true lora.init_lora_weights=pissa": "pissa does not go together with use_dora",
    "lora.target_modules=(": "not a regular expression",
    "output.trackers=[wandb,wandb]": "a tracker is given twice",
    "data.new_special_tokens=[<a>,<a>]": "a token is given twice",
    "model.revision=v2": "has no effect on a base that is not on the hub",
    "data.train={path: rows.jsonl, format: completion, prompt: a, completion: a}": "are the same column, a",
    "data.test={path: rows.jsonl, format: alpaca, weight: 2}": "data.test.weight: has no effect on rows that are not",
    "data.validation=[{path: rows.jsonl, format: alpaca, weight: 2}]": "data.validation.0.weight: has no effect on",
    "data.train.format=text data.train_on=all": "has no effect on plain text",
    "evaluate.early_stopping_patience=2": "evaluate.early_stopping_patience: needs data.validation",
    "output.wandb_project=birds": "output.wandb_project: has no effect where wandb is not a tracker",
    "output.wandb_name=first output.trackers=[tensorboard]": "output.wandb_name: has no effect where wandb is not",
    "output.wandb_project=a/b output.trackers=[wandb]": "in a project's name, and this has /",
    "output.wandb_name='' output.trackers=[wandb]": "wandb takes 1 to 128 characters, and this has 0",
    "evaluate.every_steps=10": "has no effect without data.validation",
    "train.warmup_steps=11 train.max_steps=10": "11 steps of warm-up in a training of 10",
}


@pytest.mark.parametrize(("overrides", "what"), CONFLICTS.items())
def test_values_that_cannot_work_together_are_refused(folder: Path, overrides: str, what: str) -> None:
    settings = [overrides] if "{" in overrides else overrides.split(" ")
    (problem,) = problems_of(write(folder, SHORTEST), *settings)
    assert what in problem
    assert problem.startswith("command line: ")


WORKING = [
    ["data.test={path: rows.jsonl, format: alpaca, weight: 1}"],
    ["data.train.format=text", "data.train_on=all", "data.test={path: rows.jsonl, format: alpaca}"],
    ["evaluate.every_steps=200"],
    ["evaluate.every_steps=10", "data.validation.fraction=0.5"],
    ["train.warmup_steps=10", "train.max_steps=10"],
    ["train.warmup_steps=11"],
]


@pytest.mark.parametrize("overrides", WORKING, ids=" ".join)
def test_values_that_have_an_effect_are_taken_and_what_is_written_out_is_taken_again(
    folder: Path, overrides: list[str]
) -> None:
    recipe = load_recipe(write(folder, SHORTEST), overrides)
    (folder / "whole.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(folder / "whole.yaml") == recipe


SLIPS = {
    "train.seed='1'": "write 1",
    "train.max_steps=none": "write null",
    "data.packing=no": "write false",
    "train.num_epochs=.inf": "expected a number above 0",
    "train.num_epochs=.nan": "expected a number above 0",
    "train.global_batch_size=1.0": "write 1",
    "train.global_batch_size=true": "expected a whole number at least 1",
    "train.learning_rate=0": "expected a number above 0 and at most 1",
    "train.learning_rate=": "expected a number above 0 and at most 1",
    "lora.target_modules=[]": "expected text or a list of text",
    "output.trackers=[tensorbord]": "expected a list of tensorboard or wandb",
    "output.trackers=wandb": "write a list: [wandb]",
    "data.train=[]": "expected {path: ..., format: ...}, or a list of such",
    "data.train=rows.jsonl": "expected {path: ..., format: ...}, or a list of such",
    "data.validation={fraction: 1.5}": "expected a number above 0 and below 1",
    "data=3": "expected a mapping of options",
    "data.train.path=''": "expected text",
    "model.name_or_path=3": "expected text",
    "rank=3": "did you mean lora.r?",
    "learning_rate=3": "did you mean train.learning_rate?",
    "train.zzz=3": "there is: num_epochs, max_steps",
    "model.revision=1.0": 'model.revision is 1.0, expected text\n    put it in quotes: "1.0"',
    "model.revision=6e12345": 'model.revision is 6e12345, expected text\n    put it in quotes: "6e12345"',
    "data.train.prompt_prefix=Question: ": 'put it in quotes: "Question: "',
    "data.train.path=*.jsonl": "put text that begins with * in quotes",
    "data.train={path: rows.jsonl, format: completion, prompt_prefix: Question: }": "put the value in quotes",
    "train.num_epochs=1e308": "train.num_epochs is 1e308, expected a number above 0 and at most 100000",
    "train.seed=1e12": "write 1000000000000",
    "output.dir=0": 'put it in quotes: "0"',
    "output.dir=false": "output.dir is false, expected text",
    "output.dir=null": "output.dir is null, expected text",
    "output.dir=[]": "output.dir is [], expected text",
    "output.dir={}": "output.dir is {}, expected text",
    "data.train=[3]": "data.train.0 is 3, expected {path: ..., format: ...}",
}


@pytest.mark.parametrize(("override", "hint"), SLIPS.items())
def test_a_slip_gets_its_cure(folder: Path, override: str, hint: str) -> None:
    assert any(hint in problem for problem in problems_of(write(folder, SHORTEST), override))


@pytest.mark.parametrize("number", ["1e300", "1." + "0" * 400 + "e12", "-1e40"])
def test_a_number_of_any_size_is_told_in_a_short_line(folder: Path, number: str) -> None:
    (folder / "long.yaml").write_text(f"{SHORTEST}train: {{seed: {number}}}\n")
    (problem,) = problems_of(folder / "long.yaml")
    assert max(map(len, problem.split("\n"))) < 300


def test_an_emoji_as_json_writes_it_is_one_character(folder: Path) -> None:
    tree = {
        "model": {"name_or_path": "builtin:nestling"},
        "data": {"train": {"path": "rows.jsonl", "format": "completion", "prompt_prefix": "\U0001f426 \u00e9 "}},
    }
    path = write(folder, json.dumps(tree))
    assert "ud83d" in path.read_text()
    (source,) = sources(load_recipe(path).data.train)
    assert source.prompt_prefix == "\U0001f426 \u00e9 "
    path.write_text(path.read_text().replace("\\udc26", ""))
    (problem,) = problems_of(path)
    assert problem.startswith("R:1: half of a character (a lone surrogate)")


def test_a_mixture_of_one_tells_one_mistake_once(folder: Path) -> None:
    (problem,) = problems_of(write(folder, SHORTEST), "data.train=[{path: rows.jsonl, format: alpacca}]")
    assert "data.train.0.format" in problem and "did you mean alpaca?" in problem


def test_what_is_no_recipe_is_told_as_such(folder: Path) -> None:
    (folder / "empty.yaml").write_text("# nothing\n")
    (folder / "list.yaml").write_text("- a\n")
    (folder / "text.yaml").write_text("hello\n")
    (folder / "binary.yaml").write_bytes(b"\x93NUMPY\x00\xff")
    (folder / "huge.yaml").write_bytes(b"a" * 70_000)
    (folder / "rows.csv").write_text("a,b\n")
    (folder / "wide.yaml").write_bytes(SHORTEST.encode("utf-16"))
    os.mkfifo(folder / "pipe.yaml")
    expected = {
        "empty.yaml": "the recipe is empty",
        "list.yaml": "this is a list",
        "text.yaml": "this is a single value, not a recipe",
        "binary.yaml": "not UTF-8 text",
        "huge.yaml": "larger than 64 KB",
        "pipe.yaml": "this is not a regular file",
        "rows.csv": "this is a file of rows, not a recipe",
        "wide.yaml": "not UTF-8 text",
        "lst.yaml": "there is no such recipe",
        ".": "this is a folder",
        "no/where.yaml": "there is no such recipe",
        "x" * 300: "the recipe cannot be read",
    }
    for name, what in expected.items():
        (problem,) = problems_of(folder / name)
        assert what in problem, name
    assert "did you mean F/list.yaml?" in problems_of(folder / "lst.yaml")[0]


def test_an_empty_section_is_told_and_a_missing_one_named(folder: Path) -> None:
    problems = problems_of(write(folder, "model:\nlora: {}\n"))
    assert problems[0].startswith("R: data is missing")
    assert problems[1].startswith("R:1: model is null, expected a mapping of options")
    assert len(problems) == 2


def test_a_mixture_names_the_source_that_is_wrong(folder: Path) -> None:
    text = """\
model: {name_or_path: builtin:nestling}
data:
  train:
    - {path: rows.jsonl, format: alpaca}
    - path: rows.jsonl
      format: alpacca
      weight: 0
"""
    assert problems_of(write(folder, text)) == [
        'R:6: data.train.1.format is "alpacca", expected alpaca, chat, completion or text\n    did you mean alpaca?',
        "R:7: data.train.1.weight is 0, expected a number above 0 and at most 1000",
    ]


def test_the_recipe_of_a_run_loads_when_its_data_are_gone(folder: Path) -> None:
    path = write(folder, SHORTEST)
    loaded = load_recipe(path)
    kept = folder / "kept.yaml"
    kept.write_text(
        path.read_text().replace("rows.jsonl", str(folder / "rows.jsonl")) + f"output: {{dir: {loaded.output.dir}}}\n"
    )
    (folder / "rows.jsonl").unlink()
    assert read_recipe(kept) == loaded
    assert isinstance(loaded, Recipe)
    with pytest.raises(RecipeError, match=r"there is no .*rows\.jsonl"):
        load_recipe(kept)


def test_loading_a_recipe_imports_neither_torch_nor_transformers(folder: Path) -> None:
    path = write(folder, SHORTEST)
    code = (
        "import sys; from fledge.config.load import load_recipe; load_recipe(sys.argv[1]);"
        "assert not {'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
