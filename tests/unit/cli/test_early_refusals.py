"""What can be told from arguments, names of files and recipes is told before torch or transformers is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fledge.config.dump import dump_recipe
from tests.runs import environment, load, recipe_dict, write_recipe, write_rows

# One process runs every case and says after each what was imported by then: nothing heavy is, so none hides the next.
PROBE = """
import contextlib, io, json, sys
from fledge.cli.main import run
HEAVY = {"torch", "transformers", "peft", "datasets", "pyarrow", "numpy", "huggingface_hub", "tokenizers"}
found = []
for arguments in json.loads(sys.argv[1]):
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
        code = run(arguments)
    found.append([code, said.getvalue(), sorted(HEAVY & set(sys.modules))])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Recipes right and wrong, a run that has begun, another tool's file, and the folder of an adapter."""
    folder = tmp_path_factory.mktemp("early")
    rows = write_rows(folder / "rows.jsonl")
    content = recipe_dict("builtin:nestling", rows, folder / "new")
    write_recipe(folder / "good.yaml", content)
    write_recipe(folder / "key.yaml", content | {"train": {"lerning_rate": 1}})
    write_recipe(folder / "value.yaml", content | {"train": {"learning_rate": "fast"}})
    write_recipe(folder / "rows.yaml", content | {"data": {"train": {"path": "none.jsonl", "format": "completion"}}})
    write_recipe(folder / "other.yaml", content | {"lora": {"r": 2}, "output": {"dir": str(folder / "run")}})
    write_recipe(folder / "full.yaml", content | {"output": {"dir": str(folder / "full")}})
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    (folder / "run").mkdir()
    (folder / "run" / "recipe.yaml").write_text(
        dump_recipe(load(folder, content | {"output": {"dir": str(folder / "run")}}))
    )
    (folder / "broken").mkdir()
    (folder / "broken" / "recipe.yaml").write_text("model: {")
    (folder / "plain").mkdir()
    (folder / "plain" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "target_modules": ["q"]}')
    (folder / "plain" / "adapter_model.safetensors").touch()
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    (folder / "axolotl.yaml").write_text("base_model: org/base\nlearning_rate: 1\n")
    return folder


RUN_VERBS = {"evaluate": [], "generate": ["--prompt", "x"], "chat": [], "export": ["out"]}
CASES: dict[str, tuple[list[str], str]] = {
    "no such recipe": (["train", "none.yaml"], "there is no such recipe"),
    "an unknown key": (["train", "key.yaml"], "did you mean learning_rate?"),
    "a wrong value": (["train", "value.yaml"], 'train.learning_rate is "fast"'),
    "rows that are not there": (["train", "rows.yaml"], "there is no none.jsonl"),
    "an unknown setting": (["train", "good.yaml", "train.sed=1"], "did you mean seed?"),
    "an unknown option": (["train", "good.yaml", "--foo"], "No such option"),
    "an unknown key with --base-path": (["train", "key.yaml", "--base-path", "base"], "did you mean learning_rate?"),
    "no folder in --base-path": (["train", "good.yaml", "--base-path", "nix"], "there is no such folder"),
    "no base in --base-path": (["train", "good.yaml", "--base-path", "full"], "this folder has no config.json"),
    "no run whose base has moved": (["train", "good.yaml", "--base-path", "base"], "no run in"),
    "a folder of another recipe": (["train", "other.yaml"], "lora.r is 4 there and 2 here"),
    "a folder of somebody's files": (["train", "full.yaml"], "files that are no run's: mine.txt"),
    "an unknown verb": (["trane"], "No such command"),
    "another tool's file": (["import", "axolotl.yaml"], "in a recipe write train.learning_rate: 1"),
    "a file in the way of init": (["init", "good.yaml"], "left as it is"),
    "init with rows and no base": (["init", "x.yaml", "--data", "rows.jsonl"], "give --model too"),
    "push of no run": (["push", "nix", "name"], "there is no such run folder"),
    "an export that is there": (["export", "run", "full"], "something in this folder already"),
    "sampling without effect": (["generate", "run", "--prompt", "x", "--seed", "1"], "would have no effect"),
    "no rows to show as JSON": (["evaluate", "run", "--json", "--show", "1"], "has no effect with --json"),
}
for verb, more in RUN_VERBS.items():
    CASES |= {
        f"{verb} of no folder": ([verb, "nix", *more], "there is no such run folder"),
        f"{verb} of another folder": ([verb, "full", *more], "this is not a run folder"),
        f"{verb} of a broken recipe": ([verb, "broken", *more], "recipe.yaml"),
        f"{verb} with an unknown option": ([verb, "run", *more, "--foo"], "No such option"),
        f"{verb} with a wrong value": ([verb, "run", *more, "--which", "worst"], "Invalid value for '--which'"),
        f"{verb} with no folder in --base-path": ([verb, "run", *more, "--base-path", "nix"], "no such folder"),
        f"{verb} with no base in --base-path": ([verb, "run", *more, "--base-path", "plain"], "an adapter, not a base"),
        f"{verb} with a recipe of no effect": ([verb, "run", *more, "--recipe", "good.yaml"], "leave --recipe away"),
        f"{verb} with consent of no effect": ([verb, "run", *more, "--trust-remote-code"], "leave --trust-remote"),
        f"{verb} of an adapter with a wrong recipe": (
            [verb, "plain", *more, "--recipe", "key.yaml"],
            "did you mean learning_rate?",
        ),
        f"{verb} of an adapter with --which": ([verb, "plain", *more, "--which", "best"], "leave --which away"),
    }


@pytest.fixture(scope="module")
def told(place) -> dict[str, list]:
    """Code, words and heavy imports of every case."""
    asked = json.dumps([arguments for arguments, _ in CASES.values()])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, asked],
        cwd=place,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_simple_refusal_comes_before_torch_is_imported(case, told):
    code, said, heavy = told[case]
    assert code == 2 and CASES[case][1] in said, said
    assert not heavy


def test_the_commented_recipe_is_written_without_torch_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([["init"], ["schema"]])],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [(code, heavy) for code, _, heavy in json.loads(done.stdout)] == [(0, [])] * 2
    assert (tmp_path / "recipe.yaml").is_file()
