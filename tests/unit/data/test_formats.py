"""Formats without turns: what each record becomes, and what is said where it is not what its format needs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fledge.config.data import DataConfig, SourceConfig
from fledge.data.formats.control import BECOMES_TOKEN, KEPT_AS_TEXT
from fledge.data.formats.plain import alpaca_prompt
from fledge.data.formats.render import renderer
from fledge.data.rows import TEXT_COLUMN, Refusal, RenderedRow
from fledge.errors import DataError
from tests.unit.data.tiny import Tiny, byte_level, gpt_like, llama_like

words = st.text(st.characters(codec="utf-8"), max_size=30)


def one(rows):
    """The one row that a record became, or its refusal."""
    if isinstance(rows, Refusal):
        return rows
    [row] = rows
    return row


def render(form, record, *, train_on="completion", sanitize=True, **options):
    source = SourceConfig.model_validate({"path": "x.jsonl", "format": form, **options})
    data = DataConfig(train=source, train_on=train_on, sanitize_control_tokens=sanitize)
    return one(renderer(source, llama_like(), data=data)(record))


def trained(row):
    assert isinstance(row, RenderedRow), row
    return [row.text[start:stop] for start, stop in row.spans]


def test_alpaca_is_stanfords_prompt_to_the_letter():
    row = render("alpaca", {"instruction": "Add.", "input": "1 2", "output": "3"})
    assert row.text == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:3"
    )
    assert trained(row) == ["3"]
    assert row.ends_turn and not row.has_specials


@pytest.mark.parametrize("record", [{"input": ""}, {"input": None}, {}])
def test_alpaca_without_an_input_takes_the_other_prompt(record):
    row = render("alpaca", {"instruction": "Go.", "output": "ok", **record})
    assert row.text == alpaca_prompt("Go.") + "ok"
    assert "### Input" not in row.text


@given(words, words, words)
def test_alpaca_trains_the_output_and_nothing_else(instruction, context, output):
    row = render("alpaca", {"instruction": instruction, "input": context, "output": output})
    if output.strip():
        assert trained(row) == [output]
        assert row.text[: row.spans[0][0]] == alpaca_prompt(instruction, context)
    else:
        assert isinstance(row, Refusal)
        assert row.reason in ("empty", "empty_completion")


def test_completion_takes_named_columns_and_a_prefix():
    options = {"prompt": "dialogue", "completion": "summary", "prompt_prefix": "Summarise: "}
    row = render("completion", {"dialogue": "A: hi", "summary": " greeting"}, **options)
    assert row.text == "Summarise: A: hi greeting"
    assert trained(row) == [" greeting"]


def test_train_on_all_trains_the_prompt_and_keeps_the_answer_for_generation():
    row = render("completion", {"prompt": "a ", "completion": "b"}, train_on="all")
    assert trained(row) == ["a b"]
    assert row.text[slice(*row.answer)] == "b"


def test_text_is_trained_whole_and_an_eos_in_it_is_not_doubled():
    assert trained(render("text", {"text": "<s>[INST] a [/INST] b"})) == ["<s>[INST] a [/INST] b"]
    assert render("text", {"text": "a"}).ends_turn
    assert not render("text", {"text": "a </s>\n"}).ends_turn
    assert trained(render("text", {"body": "a"}, text_column="body")) == ["a"]
    assert trained(render("text", {TEXT_COLUMN: "a file"}, text_column="body")) == ["a file"]


@pytest.mark.parametrize(
    ("form", "record", "reason"),
    [
        ("alpaca", {"instruction": "a", "output": ""}, "empty_completion"),
        ("alpaca", {"instruction": "a", "output": " \n"}, "empty_completion"),
        ("alpaca", {"instruction": "", "input": "", "output": ""}, "empty"),
        ("completion", {"prompt": "a", "completion": ""}, "empty_completion"),
        ("completion", {"prompt": " ", "completion": ""}, "empty"),
        ("text", {"text": " \n"}, "empty"),
        ("text", {"text": None}, "empty"),
        ("alpaca", {"instruction": "a", "output": None}, "empty_completion"),
        ("alpaca", {"instruction": None, "input": math.nan, "output": ""}, "empty"),
        ("completion", {"prompt": "a", "completion": math.nan}, "empty_completion"),
        ("completion", {"prompt": math.nan, "completion": None}, "empty"),
    ],
)
def test_rows_with_nothing_to_learn_are_refused_by_reason(form, record, reason):
    row = render(form, record)
    assert isinstance(row, Refusal)
    assert row.reason == reason


@pytest.mark.parametrize(
    ("form", "record", "said", "cure"),
    [
        (
            "alpaca",
            {"instruction": "a", "ouput": "b"},
            "no column 'output'; present: 'instruction', 'ouput'",
            "write columns: {output: ouput} in the source",
        ),
        ("alpaca", {"instruction": 3, "output": "b"}, "column 'instruction' holds a number, not text", ""),
        ("alpaca", {"instruction": "a", "input": ["x"], "output": "b"}, "column 'input' holds a list", ""),
        ("completion", {"prompt": "a", "completion": {"x": 1}}, "column 'completion' holds an object", ""),
        ("completion", {"prompt;completion": "a;b"}, "no column 'prompt'", 'delimiter: ";"'),
        ("completion", {"prompt": "a", "completion": "b\ud800"}, "half a surrogate pair", ""),
        ("text", {"txet": "a"}, "no column 'text'", "columns: {text: txet}"),
        ("text", {}, "no column 'text'; present: none", ""),
        ("alpaca", {TEXT_COLUMN: "a file"}, "a text file has no columns", "format to text"),
        ("text", {"text": True}, "column 'text' holds true or false", ""),
    ],
)
def test_a_record_that_is_not_what_its_format_needs_is_invalid(form, record, said, cure):
    row = render(form, record)
    assert isinstance(row, Refusal)
    assert row.reason == "invalid"
    assert said in row.what
    assert cure in row.cure


def test_a_control_token_in_the_rows_own_text_stays_text_unless_the_recipe_says_otherwise():
    record = {"instruction": "strike <s>this</s>", "output": "b"}
    row = render("alpaca", record)
    assert row.notes == (KEPT_AS_TEXT,)
    assert [row.text[place : place + 3] for place in row.literals] == ["<s>", "</s"]
    assert render("alpaca", record, sanitize=False).notes == (BECOMES_TOKEN,)
    assert not render("alpaca", {"instruction": "strike <b>this</b>", "output": "b"}).notes


def test_a_control_token_in_the_recipes_own_text_is_that_token():
    row = render("completion", {"prompt": "a </s> ", "completion": "b"}, prompt_prefix="</s>")
    assert row.text == "</s>a </s> b" and row.literals == (6,)


def test_plain_text_brings_its_control_tokens():
    row = render("text", {"text": "<s>a</s>"})
    assert not row.literals and not row.notes


def test_chat_without_a_template_is_refused_with_the_cure():
    source = SourceConfig.model_validate({"path": "x.jsonl", "format": "chat"})
    with pytest.raises(DataError, match="no chat template") as caught:
        renderer(source, gpt_like(), data=DataConfig(train=source))
    assert "chatml" in str(caught.value)


@pytest.mark.parametrize(
    ("form", "record"),
    [
        ("text", {"text": "a"}),
        ("completion", {"prompt": "a", "completion": "b"}),
        ("chat", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    ],
)
def test_a_row_that_can_be_given_no_end_token_is_noted(form, record):
    source = SourceConfig.model_validate({"path": "x.jsonl", "format": form})
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    without, having = (Tiny(byte_level(), eos_token=eos, template=template) for eos in (None, "</s>"))
    data = DataConfig(train=source)
    assert any("no end token" in note for note in one(renderer(source, without, data=data)(record)).notes)
    assert not one(renderer(source, having, data=data)(record)).notes


def test_a_column_that_holds_the_rows_is_named():
    row = render("completion", {"data": [{"prompt": "a", "completion": "b"}]})
    assert isinstance(row, Refusal)
    assert "the list under 'data'" in row.cure
