"""`fledge init --model --data`: the file decides format and columns, and the recipe trains as it is."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fledge.cli.main import run
from fledge.cli.show import show_marked, show_marks
from fledge.commands.evaluate import evaluate
from fledge.commands.init import init
from fledge.commands.train import train
from fledge.config.load import load_recipe
from fledge.config.starter import Starter, starter_recipe
from fledge.data.rows import RawRow
from fledge.data.survey import guess_format
from fledge.errors import DataError
from tests.tiny_models import tiny_folder

TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m.role + ' ' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}"
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    made = {"bare": tiny_folder("llama", folder / "bare"), "chat": tiny_folder("llama", folder / "chat")}
    (made["chat"] / "chat_template.jinja").write_text(TEMPLATE)
    return made | {"t5": tiny_folder("t5", folder / "t5")}


def written(tmp_path: Path, base: Path, rows: str, *, name: str = "faq.csv"):
    (tmp_path / name).write_text(rows, encoding="utf-8")
    found = init(tmp_path / "recipe.yaml", model=str(base), data=str(tmp_path / name))
    return found, yaml.safe_load((tmp_path / "recipe.yaml").read_text())


FAQ = "question;answer\n" + "".join(f"one plus {n}?;it is {n}\n" for n in range(12)) + 'torn;"open\n' + "ragged\n"


def test_a_csv_of_questions_and_answers_becomes_a_chat_model_that_evaluate_measures(bases, tmp_path):
    found, recipe = written(tmp_path, bases["chat"], FAQ)
    assert recipe["data"]["train"] == {
        "path": "./faq.csv",
        "format": "chat",
        "columns": {"user": "question", "assistant": "answer"},
    }
    assert recipe["data"]["validation"] == {"fraction": 0.05} and recipe["data"]["invalid_rows"] == "drop"
    assert [row.text[slice(*row.spans[0])] for row in found.rows] == [f"it is {n}</s>" for n in range(3)]
    assert any("2 rows are broken" in remark for remark in found.remarks)
    short = ["train.max_steps=2", "train.num_epochs=1", "model.dtype=float32"]
    result = train(load_recipe(tmp_path / "recipe.yaml", short[::2]))
    assert result.summary["steps"] == 2
    assert evaluate(result.run).rows == 1


@pytest.mark.parametrize(
    ("num_rows", "width", "wanted"),
    [
        (4, 64, {"num_epochs": 50, "global_batch_size": 8, "learning_rate": 1e-3}),
        (50, 576, {"num_epochs": 40, "global_batch_size": 8, "learning_rate": 1e-3}),
        (300, 576, {"num_epochs": 20, "global_batch_size": 8, "learning_rate": 1e-3}),
        (300, 2048, {"num_epochs": 20, "global_batch_size": 8, "learning_rate": 5e-4}),
        (300, 4096, {"num_epochs": 20, "global_batch_size": 8}),
        (600, None, {"num_epochs": 10, "global_batch_size": 8}),
        (999, 576, {"num_epochs": 6, "global_batch_size": 8, "learning_rate": 1e-3}),
        (1000, 576, {"num_epochs": 3, "global_batch_size": 16}),
        (10_000, 576, None),
    ],
)
def test_few_rows_are_seen_often_and_wide_bases_take_small_steps(num_rows, width, wanted):
    source = {"path": "./rows.csv", "format": "chat"}
    starter = Starter("base", source, num_rows, width, max_length=512, remarks=(), data={})
    assert yaml.safe_load(starter_recipe(starter)).get("train") == wanted


def test_a_base_without_a_template_gets_chatml_and_one_with_an_encoder_completions(bases, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    found, recipe = written(tmp_path / "a", bases["bare"], FAQ)
    assert recipe["data"]["chat_template"] == "chatml" and "<|im_start|>" in found.rows[0].text
    _, recipe = written(tmp_path / "b", bases["t5"], FAQ)
    assert recipe["data"]["train"]["format"] == "completion"
    assert recipe["data"]["train"]["columns"] == {"prompt": "question", "completion": "answer"}


MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
SUMMARY = {"user": "dialogue", "assistant": "summary"}
FILES = {
    "alpaca.json": ([{"instruction": "a b", "input": "", "output": "c"}], "alpaca", None),
    "messages.jsonl": ([{"messages": MESSAGES}], "chat", None),
    "dialog.jsonl": ([{"dialog": SHAREGPT}], "chat", {"messages": "dialog"}),
    "pairs.jsonl": ([{"prompt": "a b", "completion": "c"}], "completion", None),
    "body.jsonl": ([{"body": "some words", "id": 1}], "text", {"text": "body"}),
    "summary.jsonl": ([{"id": "1", "dialogue": "a: hi", "summary": "they greet"}], "chat", SUMMARY),
}


@pytest.mark.parametrize("name", FILES)
def test_the_format_is_found_in_the_columns_and_in_what_they_hold(name, bases, tmp_path):
    rows, form, columns = FILES[name]
    text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    _, recipe = written(tmp_path, bases["chat"], text, name=name)
    source = recipe["data"]["train"]
    assert (source["format"], source.get("columns")) == (form, columns)
    load_recipe(tmp_path / "recipe.yaml")


def test_a_text_file_is_trained_whole(bases, tmp_path):
    _, recipe = written(tmp_path, bases["chat"], "some words", name="notes.txt")
    assert recipe["data"]["train"] == {"path": "./notes.txt", "format": "text"} and "validation" not in recipe["data"]


def test_rows_are_never_longer_than_the_base_has_positions(bases, tmp_path):
    config = json.loads((bases["chat"] / "config.json").read_text())
    short = tiny_folder("gpt2", tmp_path / "gpt2")
    positions = json.loads((short / "config.json").read_text())["n_positions"]
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    long = "question,answer\n" + f"what?,{'word ' * 3000}\n" * 3
    _, recipe = written(tmp_path / "a", short, long)
    assert recipe["data"]["max_length"] == min(positions, 2048)
    _, recipe = written(tmp_path / "b", bases["chat"], FAQ)
    assert recipe["data"]["max_length"] == min(config["max_position_embeddings"], 512)


def test_columns_that_leave_it_open_are_listed_with_the_key_to_set(bases, tmp_path):
    with pytest.raises(DataError) as caught:
        written(tmp_path, bases["chat"], "eins,zwei,drei\nab,cd,ef\n")
    assert "'eins', 'zwei', 'drei'" in str(caught.value) and "columns: {user: NAME, assistant: NAME}" in str(
        caught.value
    )
    assert not (tmp_path / "recipe.yaml").exists()


def test_nothing_is_overwritten_and_data_needs_a_base(bases, tmp_path, capsys):
    (tmp_path / "faq.csv").write_text(FAQ)
    assert run(["init", str(tmp_path / "recipe.yaml"), "--data", str(tmp_path / "faq.csv")]) == 2
    assert "give --model too" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").write_text("mine")
    command = [
        "init",
        str(tmp_path / "recipe.yaml"),
        "--model",
        str(bases["chat"]),
        "--data",
        str(tmp_path / "faq.csv"),
    ]
    assert run(command) == 2
    assert (tmp_path / "recipe.yaml").read_text() == "mine" and "left as it is" in capsys.readouterr().err


def test_three_rows_are_shown_with_the_trained_part_marked_and_text_is_no_command(bases, tmp_path, capsys):
    hostile = FAQ.replace("one plus 0?", "\x1b[31mone [bold]plus[/bold] 0?")
    (tmp_path / "faq.csv").write_text(hostile)
    command = ["init", str(tmp_path / "r.yaml"), "--model", str(bases["chat"]), "--data", str(tmp_path / "faq.csv")]
    assert run(command) == 0
    printed = capsys.readouterr().out
    explained, *rows = (line for line in printed.splitlines() if "[[" in line)
    assert "what the model learns to write" in explained and explained.endswith("stands between [[ and ]]")
    assert len(rows) == 3 and "<s>assistant [[it is 0</s>]]" in printed
    assert "\x1b" not in printed and "[bold]plus[/bold]" in printed


def test_on_a_terminal_the_trained_part_is_green_and_that_is_said(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show_marks("the text that is trained on")
    show_marked([("2 + 2 = ", False), ("4", True)])
    said, row = capsys.readouterr().out.splitlines()
    assert said == "the text that is trained on is green" and row == "2 + 2 = \x1b[1;32m4\x1b[0m"


def test_a_base_alone_is_written_into_the_commented_recipe(tmp_path):
    assert run(["init", str(tmp_path / "r.yaml"), "--model", "builtin:nestling"]) == 0
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.model.name_or_path == "builtin:nestling" and recipe.data.validation is not None


names = st.sampled_from(["a", "question", "answer", "text", "messages", "prompt", "Output", "id", "\n", "x" * 99])
values = st.none() | st.integers() | st.floats() | st.text(max_size=6) | st.lists(st.text(max_size=3), max_size=2)


@settings(suppress_health_check=list(HealthCheck))
@given(st.lists(st.dictionaries(names, values, max_size=5), min_size=1, max_size=5), st.booleans())
def test_any_rows_have_a_format_or_are_refused_in_words(records, takes_chat):
    try:
        guess = guess_format([RawRow(n, record) for n, record in enumerate(records, 1)], takes_chat=takes_chat)
    except DataError as error:
        assert error.problems[0].cure
        return
    assert guess.format in ("alpaca", "completion", "text") or (takes_chat and guess.format == "chat")
