"""Options of a source that do not go together are told with their line, and a cure that loads."""

from pathlib import Path

import pytest

from fledge.config.columns import columns_of, further_columns
from fledge.config.data import SourceConfig
from fledge.config.load import load_recipe
from fledge.errors import RecipeError

HUB = "someone/birds"
SOURCES = {
    "an unknown role": (
        "path: rows.jsonl, format: alpaca, columns: {instrction: q}",
        "data.train.columns.instrction: format alpaca has no role 'instrction'",
        "did you mean instruction?",
    ),
    "a role of another format": (
        "path: rows.jsonl, format: completion, columns: {messages: q}",
        "format completion has no role 'messages'",
        "there is: prompt, completion",
    ),
    "a role named twice": (
        "path: rows.jsonl, format: completion, columns: {prompt: q}, prompt: question",
        "data.train.columns.prompt: prompt is named twice, here and by prompt",
        "keep one of the two",
    ),
    "a role named twice by text_column": (
        "path: rows.jsonl, format: text, columns: {text: q}, text_column: body",
        "text is named twice, here and by text_column",
        "keep one of the two",
    ),
    "one column for two roles": (
        "path: rows.jsonl, format: alpaca, columns: {instruction: q, output: q}",
        "instruction and output are the same column, q",
        "name the column that holds the answer",
    ),
    "the column of a role that is not named": (
        "path: rows.jsonl, format: alpaca, columns: {instruction: output}",
        "instruction and output are the same column, output",
        "",
    ),
    "several columns for a role that is no answer": (
        "path: rows.jsonl, format: alpaca, columns: {instruction: [q, r]}",
        "data.train.columns.instruction: instruction is read from one column",
        "the answer, output, can have several",
    ),
    "several columns of text": (
        "path: rows.jsonl, format: text, columns: {text: [q, r]}",
        "text is read from one column",
        "name one column",
    ),
    "an answer's column twice": (
        "path: rows.jsonl, format: completion, completion: [a, b, a]",
        "data.train.completion: the column a is named twice",
        "name each column once",
    ),
    "an answer's further column that is the prompt": (
        "path: rows.jsonl, format: completion, prompt: q, completion: [a, q]",
        "data.train.completion: the column q is named twice",
        "",
    ),
    "an answer's further column in the prompt template": (
        'path: rows.jsonl, format: completion, completion: [a, b], prompt_template: "{q} {b}"',
        "puts the answer's own column, b, into the prompt",
        "leave {b} out",
    ),
    "messages beside a pair": (
        "path: rows.jsonl, format: chat, columns: {messages: m, user: q, assistant: a}",
        "a column of messages or two columns, not both",
        "keep messages, or user and assistant",
    ),
    "half a pair": (
        "path: rows.jsonl, format: chat, columns: {user: q}",
        "user needs assistant beside it",
        "add assistant",
    ),
    "the other half": (
        "path: rows.jsonl, format: chat, columns: {assistant: q}",
        "assistant needs user beside it",
        "add user: the column that holds the question; or a prompt_template",
    ),
    "a template of another format": (
        'path: rows.jsonl, format: alpaca, prompt_template: "{a}"',
        "data.train.prompt_template: has no effect on format alpaca",
        "format: completion",
    ),
    "a stray brace": (
        'path: rows.jsonl, format: completion, prompt_template: "{a} }"',
        "a brace stands alone at character 5",
        "{{ and }} are braces",
    ),
    "an attribute": (
        'path: rows.jsonl, format: completion, prompt_template: "{a.b}"',
        "{a.b} is not the name of a column",
        "without . [ ] ! and :",
    ),
    "an index": (
        'path: rows.jsonl, format: completion, prompt_template: "{a[0]}"',
        "{a[0]} is not the name of a column",
        "",
    ),
    "a conversion": (
        'path: rows.jsonl, format: completion, prompt_template: "{a!r}"',
        "{a!r} is not the name of a column",
        "",
    ),
    "a place without a name": (
        'path: rows.jsonl, format: completion, prompt_template: "{} {a}"',
        "{} names no column",
        "",
    ),
    "a template without a place": (
        'path: rows.jsonl, format: completion, prompt_template: "Go: {{a}}"',
        "names no column, so every prompt would be the same",
        "write {column} where its text goes",
    ),
    "the answer in the prompt": (
        'path: rows.jsonl, format: completion, prompt_template: "{a} {completion}"',
        "puts the answer's own column, completion, into the prompt",
        "leave {completion} out",
    ),
    "a template and a prefix": (
        'path: rows.jsonl, format: completion, prompt_template: "{a}", prompt_prefix: "Q: "',
        "does not go together with prompt_prefix",
        "write the prefix into it",
    ),
    "a template and a prompt": (
        'path: rows.jsonl, format: completion, prompt_template: "{a}", prompt: b',
        "makes the prompt, so the column of prompt is not read",
        "{b} is its place",
    ),
    "a template and a user": (
        'path: rows.jsonl, format: chat, prompt_template: "{a}", columns: {user: b, assistant: c}',
        "makes the prompt, so the column of user is not read",
        "",
    ),
    "a template of a chat without an answer": (
        'path: rows.jsonl, format: chat, prompt_template: "{a}"',
        "needs the column of the answer",
        "columns: {assistant: ...}",
    ),
    "a system prompt without a place": (
        "path: rows.jsonl, format: completion, system_prompt: Be kind.",
        "data.train.system_prompt: has no effect on format completion",
        "format: chat",
    ),
    "a subset of a file": (
        "path: rows.jsonl, format: alpaca, subset: en",
        "data.train.subset: has no effect on a local path",
        "remove it",
    ),
    "a revision of a folder": (
        "path: ., format: alpaca, revision: v2",
        "data.train.revision: has no effect on a local path",
        "remove it",
    ),
    "a delimiter of a hub data set": (
        f'path: {HUB}, format: alpaca, delimiter: ";"',
        "data.train.delimiter: has no effect on a hub data set",
        "remove it",
    ),
    "a delimiter of JSON": (
        'path: rows.jsonl, format: alpaca, delimiter: ";"',
        "data.train.delimiter: has no effect on .jsonl",
        "remove it",
    ),
    "a delimiter of two characters": (
        'path: rows.csv, format: alpaca, delimiter: "||"',
        "is not one character that can stand between values",
        'write ",", ";" or "\\t"',
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("rows.jsonl", "rows.csv"):
        (tmp_path / name).write_text("")
    return tmp_path


def load(folder: Path, source: str) -> SourceConfig:
    text = f"model: {{name_or_path: builtin:nestling}}\ndata:\n  train: {{{source}}}\n"
    (folder / "recipe.yaml").write_text(text)
    train = load_recipe(folder / "recipe.yaml").data.train
    assert isinstance(train, SourceConfig)
    return train


@pytest.mark.parametrize("name", SOURCES)
def test_options_that_do_not_go_together_are_told_with_line_and_cure(folder: Path, name: str) -> None:
    source, what, cure = SOURCES[name]
    with pytest.raises(RecipeError) as caught:
        load(folder, source)
    [problem] = caught.value.problems
    assert what in problem.what
    assert cure in problem.cure
    assert problem.where == f"{folder / 'recipe.yaml'}:3"


GOOD = [
    'path: rows.csv, format: chat, columns: {user: q, assistant: a}, delimiter: ";"',
    'path: rows.csv, format: chat, columns: {assistant: a}, prompt_template: "{q}", system_prompt: Be kind.',
    'path: rows.csv, format: completion, prompt_template: "{{x}} {Frage, kurz}", columns: {completion: prompt}',
    "path: rows.jsonl, format: alpaca, columns: {instruction: output, output: instruction}",
    "path: rows.jsonl, format: alpaca, columns: {instruction: input}",
    "path: rows.jsonl, format: completion, prompt: completion, completion: prompt",
    "path: rows.csv, format: text, delimiter: '\\t'",
    "path: ., format: text, split: test, subset: en",
    f"path: {HUB}, format: text, split: test, subset: en, revision: v2",
]


@pytest.mark.parametrize("source", GOOD)
def test_what_goes_together_loads(folder: Path, source: str) -> None:
    load(folder, source)


def test_a_role_is_a_setting_of_the_command_line_too(folder: Path) -> None:
    load(folder, "path: rows.jsonl, format: alpaca")
    recipe = load_recipe(folder / "recipe.yaml", ["data.train.columns.output=response"])
    assert isinstance(recipe.data.train, SourceConfig)
    assert recipe.data.train.columns == {"output": "response"}


def test_columns_that_are_no_mapping_of_names_are_told(folder: Path) -> None:
    for value in ("output", "{output: 3}", "[a]", "null"):
        with pytest.raises(RecipeError, match="expected a mapping of names to text"):
            load(folder, f"path: rows.jsonl, format: alpaca, columns: {value}")


def test_the_columns_of_a_source_are_those_that_are_named_and_the_others_by_their_role() -> None:
    names = {"instruction": "input", "output": "answer"}
    source = SourceConfig(path="x.jsonl", format="alpaca", columns=names)
    assert columns_of(source) == {**names, "system": "system", "history": "history"}
    pair = SourceConfig(path="x.jsonl", format="chat", columns={"user": "q", "assistant": "a"})
    assert columns_of(pair) == {"user": "q", "assistant": "a", "system": "system", "tools": "tools"}
    several = SourceConfig(path="x.jsonl", format="chat", columns={"user": "q", "assistant": ("a", "b")})
    assert columns_of(several) == columns_of(pair) and further_columns(several) == ("b",)
    assert further_columns(SourceConfig(path="x", format="completion", completion=("a", "b", "c"))) == ("b", "c")
    old = SourceConfig(path="x.jsonl", format="completion", prompt="q")
    assert columns_of(old) == {"prompt": "q", "completion": "completion"}
