"""Cures of single values: lists for a chat template, words that are options' names too."""

import json
from pathlib import Path

import pytest

from fledge.config.dump import dump_recipe
from fledge.config.load import load_recipe
from fledge.errors import RecipeError
from fledge.models.chat_template import with_defaults

HEAD = "model: {name_or_path: builtin:nestling}\ndata:\n  train: {path: rows.jsonl, format: chat}\n"


def load(folder: Path, lines: str):
    (folder / "rows.jsonl").write_text("{}\n")
    (folder / "recipe.yaml").write_text(HEAD + lines)
    return load_recipe(folder / "recipe.yaml")


def refusal(folder: Path, lines: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(folder, lines)
    return str(caught.value)


GIVEN = {"topics": ["it's {a}", 1, 2.5, True, None], "mode": "short", "top": None, "empty": []}


def test_a_chat_template_takes_lists_and_has_them_as_they_were_written(tmp_path: Path):
    recipe = load(tmp_path, f"  chat_template_kwargs: {json.dumps(GIVEN)}\n")
    assert recipe.data.chat_template_kwargs == GIVEN
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe
    names = "{{ topics }}{{ mode }}{{ top }}{{ empty }}"
    assert with_defaults(names, recipe.data.chat_template_kwargs).startswith("{% if topics is not defined %}")


@pytest.mark.parametrize(
    ("value", "shown"),
    [("{a: {b: 1}}", "{b: 1}"), ("{fine: 1, a: [[1]]}", "[[1]]"), ("{a: [x, {b: 2}]}", "[x, {b: 2}]")],
)
def test_a_wrong_value_of_a_mapping_is_told_by_its_name(tmp_path: Path, value: str, shown: str):
    told = refusal(tmp_path, f"  chat_template_kwargs: {value}\n")
    wanted = "write true or false, a number, text, null or a list of such"
    assert f"data.chat_template_kwargs.a is {shown}: {wanted}" in told


def test_a_wrong_column_is_told_by_its_role(tmp_path: Path):
    text = HEAD.replace("format: chat", "format: alpaca, columns: {instruction: q, output: 3}")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    assert "data.train.columns.output is 3: write text or a list of such" in str(caught.value)


@pytest.mark.parametrize("word", ["answers", "assistant", "false"])
def test_completion_is_written_with_the_option_whose_value_it_is(tmp_path: Path, word: str):
    assert refusal(tmp_path, f"  train_on: {word}\n").endswith("write data.train_on: completion")


def test_a_format_that_is_a_columns_name_too_is_written_with_its_option(tmp_path: Path):
    told = refusal(tmp_path, "  test: {path: rows.jsonl, format: prompt_completion}\n")
    assert told.endswith("write data.test.format: completion")


def test_a_word_that_is_no_option_is_written_alone(tmp_path: Path):
    assert refusal(tmp_path, "train: {lr_scheduler: constant_with_warmup}\n").endswith("write constant")


@pytest.mark.parametrize("word", ["question-answer", "QA", "faq", "question_answer"])
def test_questions_and_answers_are_told_to_be_chat_with_two_columns(tmp_path: Path, word: str):
    told = refusal(tmp_path, f"  test: {{path: rows.jsonl, format: {word}}}\n")
    assert told.endswith("write chat, and columns: {user: NAME, assistant: NAME}")
