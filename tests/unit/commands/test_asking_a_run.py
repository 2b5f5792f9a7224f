"""generate and chat refuse what would have no effect, and chat a run that no message can be put to."""

import json
import shutil
from pathlib import Path

import pytest

from fledge.cli.main import run as fledge
from fledge.cli.sampling import drawn
from fledge.commands import chat as chatting
from fledge.commands.chat import chat
from fledge.commands.generate import Prompt, Sampling, generate
from fledge.commands.train import train
from fledge.errors import FledgeError, RunError
from tests.runs import load, recipe_dict
from tests.tiny_models import tiny_folder


@pytest.mark.parametrize("verb", ["generate", "chat"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--top-p", "0.5", "--seed", "7"], "--top-p and --seed"),
        (["--seed", "0"], "--seed"),
        (["--top-p", "1"], "--top-p"),
    ],
)
def test_an_option_of_sampling_without_a_temperature_is_refused(verb, options, named, tmp_path, capsys):
    assert fledge([verb, str(tmp_path), *(["--prompt", "x"] if verb == "generate" else []), *options]) == 2
    told = capsys.readouterr().err
    assert f"{named} would have no effect" in told and f"add --temperature above 0, or leave {named} out" in told


def test_what_is_not_given_has_the_defaults_of_sampling():
    plain = Sampling()
    assert drawn(0.0, top_p=None, seed=None) == (0.0, plain.top_p, plain.seed)
    assert drawn(0.7, top_p=None, seed=None) == (0.7, plain.top_p, plain.seed)
    assert drawn(0.7, top_p=0.5, seed=7) == (0.7, 0.5, 7)


def test_with_a_temperature_the_seed_decides(trained_run, capsys):
    run = str(trained_run("llama"))
    said = set()
    for seed in ("1", "2", "3"):
        command = ["generate", run, "--prompt", "one plus", "--temperature", "5", "--seed", seed, "--json"]
        assert fledge(command) == 0
        said.add(json.loads(capsys.readouterr().out)["text"])
    assert len(said) > 1


@pytest.fixture(scope="module")
def of_two_columns(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("columns")
    base = tiny_folder("llama", folder / "base")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"a": f"one {n}", "b": "two", "completion": " three"}) + "\n" for n in range(8)))
    recipe = recipe_dict(base, rows, folder / "run", train__max_steps=1)
    recipe["data"]["train"]["prompt_template"] = "{a} and {b}:"
    train(load(folder, recipe))
    return folder / "run"


def test_chat_refuses_a_run_whose_prompts_are_several_columns_before_the_base_is_loaded(of_two_columns, monkeypatch):
    monkeypatch.setattr(chatting, "load_tuned", lambda *_: pytest.fail("the base is loaded"))
    with pytest.raises(RunError) as caught:
        chat(of_two_columns)
    problem = caught.value.problems[0]
    assert "made of 2 columns (a, b)" in problem.what
    assert problem.cure == f"write the whole prompt: fledge generate {of_two_columns} --raw --prompt ..."


def test_the_cure_for_several_columns_answers(of_two_columns):
    assert generate(of_two_columns, Prompt("one 1 and two:", is_raw=True), sampling=Sampling(3)).tokens > 0
    with pytest.raises(FledgeError, match="--raw"):
        generate(of_two_columns, "one 1")


def test_a_template_of_one_column_takes_messages(of_two_columns, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(of_two_columns, copy)
    recipe = copy / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("{a} and {b}:", "{a} and two:"))
    assert chat(copy, sampling=Sampling(3)).say("one 1", on_text=lambda _: None).ids is not None
