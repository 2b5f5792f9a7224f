"""Rows as people have them: columns under any name, prompts of several columns, and nothing unread that is not said."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.config.columns import parse_template
from fledge.config.data import DataConfig, SourceConfig
from fledge.config.document import read_value
from fledge.data.formats.guess import guess_columns
from fledge.data.formats.mapping import mapping_of
from fledge.data.formats.plain import alpaca_prompt
from fledge.data.formats.render import SEVERAL, renderer
from fledge.data.formats.template import prompt_of
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.unread import MORE, MOST_NAMES, is_unread, unread_line, unread_note
from fledge.errors import DataError
from tests.unit.data.tiny import CHATML, gpt_like, t5_like

USER, ASSISTANT, END = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"


def render(form, record, *, tokenizer=None, **options):
    source = SourceConfig.model_validate({"path": "x.jsonl", "format": form, **options})
    rows = renderer(source, tokenizer or gpt_like(CHATML), data=DataConfig(train=source))(record)
    if isinstance(rows, Refusal):
        return rows
    [row] = rows
    return row


def trained(row):
    assert isinstance(row, RenderedRow), row
    return [row.text[start:stop] for start, stop in row.spans]


def test_alpaca_takes_the_columns_that_are_named():
    names = {"instruction": "question", "input": "context", "output": "answer", "system": "role"}
    record = {"question": "Name it.", "context": "a bird", "answer": "Crow.", "role": "Be brief."}
    row = render("alpaca", record, columns=names)
    assert row.text == alpaca_prompt("Name it.", "a bird", system="Be brief.") + "Crow."
    assert trained(row) == ["Crow."]
    assert not row.notes


def test_a_column_that_has_another_role_is_not_read_for_its_own_name():
    row = render("alpaca", {"input": "Name a bird.", "output": "Crow."}, columns={"instruction": "input"})
    assert row.text == alpaca_prompt("Name a bird.") + "Crow."


def test_completion_and_text_take_the_columns_that_are_named():
    row = render("completion", {"q": "Q:", "a": " A"}, columns={"prompt": "q", "completion": "a"})
    assert (row.text, trained(row)) == ("Q: A", [" A"])
    swapped = render("completion", {"prompt": "a", "completion": "q"}, prompt="completion", completion="prompt")
    assert trained(swapped) == ["a"]
    assert trained(render("text", {"body": "words"}, columns={"text": "body"})) == ["words"]


def test_chat_takes_messages_under_any_name():
    said = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    row = render("chat", {"dialog": said, "sys": "Be kind."}, columns={"messages": "dialog", "system": "sys"})
    assert row.text == f"<|im_start|>system\nBe kind.{END}{USER}Hi{END}{ASSISTANT}Hello{END}"
    assert not row.notes


def test_chat_is_made_of_a_question_and_an_answer():
    columns = {"user": "question", "assistant": "answer"}
    row = render("chat", {"question": "Hi?", "answer": "Hello", "id": 7}, columns=columns)
    assert row.text == f"{USER}Hi?{END}{ASSISTANT}Hello{END}"
    assert trained(row)[0].startswith("Hello")
    reasons = [
        render("chat", {"question": asked, "answer": said}, columns=columns).reason
        for asked, said in (("", "b"), ("a", None), (math.nan, " "))
    ]
    assert reasons == ["empty_prompt", "empty_completion", "empty"]


def test_messages_may_be_json_text_as_tables_have_them():
    text = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'
    assert render("chat", {"messages": text}).text == f"{USER}a{END}{ASSISTANT}b{END}"
    assert "holds text, not a list of messages" in render("chat", {"messages": "hello"}).what
    assert render("chat", {"messages": None}).reason == "empty"


SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n"


def test_a_system_prompt_stands_where_a_row_has_none():
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    own = [{"role": "system", "content": "Mine."}, *said]
    options = {"system_prompt": "Be kind."}
    assert render("chat", {"messages": said}, **options).text.startswith(SYSTEM)
    assert render("chat", {"messages": said, "system": math.nan}, **options).text.startswith(SYSTEM)
    assert "Be kind." not in render("chat", {"messages": own}, **options).text
    assert "Be kind." not in render("chat", {"messages": said, "system": "Mine."}, **options).text
    pair = {"columns": {"user": "q", "assistant": "a"}}
    assert render("chat", {"q": "a", "a": "b"}, **options, **pair).text.startswith(SYSTEM)
    alone = render("alpaca", {"instruction": "Go.", "output": "ok"}, **options)
    assert alone.text == "Be kind.\n\n### Instruction:\nGo.\n\n### Response:ok"
    row = render("alpaca", {"instruction": "Go.", "output": "ok", "system": "Mine."}, **options)
    assert row.text.startswith("Mine.\n\n### Instruction:")


def test_alpacas_history_is_context_and_the_ledger_says_so():
    record = {"instruction": "And?", "input": "", "output": "Black.", "history": [["A bird?", "Crow."], ["x", "y"]]}
    row = render("alpaca", record)
    assert row.text.endswith(
        "request.\n\n### Instruction:\nA bird?\n\n### Response:Crow.\n\n### Instruction:\nx\n\n### Response:y\n\n"
        "### Instruction:\nAnd?\n\n### Response:Black."
    )
    assert trained(row) == ["Black."]
    assert row.notes == ("the answers of the earlier turns in the history are context, not trained",)
    assert render("alpaca", record | {"history": '[["A bird?", "Crow."], ["x", "y"]]'}).text == row.text
    for empty in (None, [], "", math.nan):
        assert not render("alpaca", record | {"history": empty}).notes
    for wrong in ([["a"]], ["a"], 3, "a, b", [["a", 3]], {"a": "b"}):
        refused = render("alpaca", record | {"history": wrong})
        assert refused.reason == "invalid" and "history" in refused.what and "pairs" in refused.cure


TEMPLATE = "Summarise:\n{dialogue}\n---\n{{json}} {topic}:"


def test_a_template_makes_the_prompt_and_fills_each_place_once():
    record = {"dialogue": "{topic} {{x}} {0}", "topic": "birds", "summary": "ok"}
    options = {"prompt_template": TEMPLATE, "columns": {"completion": "summary"}}
    row = render("completion", record, **options)
    assert row.text == "Summarise:\n{topic} {{x}} {0}\n---\n{json} birds:ok"
    assert trained(row) == ["ok"]
    assert not row.notes
    pair = {"prompt_template": "About {topic}: {dialogue}", "columns": {"assistant": "summary"}}
    assert USER + "About birds: {topic} {{x}} {0}" + END in render("chat", record, **pair).text


@given(st.text(), st.lists(st.tuples(st.from_regex(r"[^{}.\[\]!:]+", fullmatch=True), st.text()), max_size=4))
def test_a_template_is_its_text_with_its_places_and_any_other_text_is_told(head, parts):
    written = "".join(f"{{{name}}}" + text.replace("{", "{{").replace("}", "}}") for name, text in parts)
    found = parse_template(head.replace("{", "{{").replace("}", "}}") + written)
    assert isinstance(found, tuple)
    expected = [head, *(text for _, text in parts)]
    assert [before for before, _ in found] == expected
    assert [name for _, name in found] == [*(name for name, _ in parts), None]


def test_a_template_with_an_empty_column_or_none():
    options = {"prompt_template": "{a}|{b}", "columns": {"completion": "c"}}
    assert render("completion", {"a": "x", "b": None, "c": "z"}, **options).text == "x|z"
    empty = {"a": "", "b": math.nan, "c": "z"}
    assert render("completion", empty, **options).text == "|z"
    assert render("completion", empty, tokenizer=t5_like(), **options).reason == "empty_prompt"
    missing = render("completion", {"A": "x", "b": "y", "c": "z"}, **options)
    assert "no column 'a', which prompt_template names; present: 'A', 'b', 'c'" in missing.what
    assert missing.cure == "write {A} in prompt_template"
    assert "column 'b' holds a number" in render("completion", {"a": "x", "b": 3, "c": "z"}, **options).what


def test_a_persons_prompt_goes_where_the_columns_text_went():
    source = SourceConfig(path="x.jsonl", format="completion", prompt_template="Q: {q}\nA:")
    assert prompt_of(source, "why {q}?") == "Q: why {q}?\nA:"
    assert prompt_of(SourceConfig(path="x.jsonl", format="completion", prompt_prefix="Q: "), "why?") == "Q: why?"
    several = SourceConfig(path="x.jsonl", format="completion", prompt_template="{a} {b}")
    with pytest.raises(DataError, match="made of 2 columns: a, b"):
        prompt_of(several, "why?")


FILES = {
    "dolly": ("alpaca", ["instruction", "context", "response", "category"]),
    "capitals": ("completion", ["Prompt", "Completion"]),
    "faq": ("chat", ["question", "answer"]),
    "dialogs": ("chat", ["conversation", "id"]),
    "samsum": ("completion", ["id", "dialogue", "summary"]),
    "inputs": ("alpaca", ["input", "output"]),
    "preferences": ("completion", ["prompt", "chosen", "rejected"]),
    "articles": ("text", ["Title", "article body", "Content"]),
}


@pytest.mark.parametrize("name", FILES)
def test_the_cure_of_a_missing_column_gets_further_when_it_is_applied_to_the_letter(name):
    form, columns = FILES[name]
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    record = {column: said if column == "conversation" else f"the {column}" for column in columns}
    refused = render(form, record)
    assert refused.reason == "invalid"
    assert all(repr(column) in refused.what for column in columns)
    written = re.fullmatch(r"write columns: (\{.*\}) in the source", refused.cure)
    assert written, refused.cure
    assert isinstance(render(form, record, columns=read_value(written[1], (), where="").tree), RenderedRow)


def test_the_cure_keeps_the_columns_that_are_named_already():
    refused = render("alpaca", {"task": "a", "answer": "b"}, columns={"instruction": "task"})
    assert refused.cure == "write columns: {instruction: task, output: answer} in the source"


def test_a_row_of_another_format_is_told_which():
    assert "format: alpaca" in render("completion", {"instruction": "a", "output": "b"}).cure
    assert "format: chat" in render("alpaca", {"messages": []}).cure


def test_a_table_of_very_many_columns_is_told_in_few_words():
    refused = render("completion", {f"column {number}": "x" for number in range(20_000)})
    assert len(refused.what) < 1000 and "and 19,980 more" in refused.what


def test_columns_are_guessed_for_whoever_writes_a_recipe():
    assert guess_columns(["question", "answer"], "chat") == {"user": "question", "assistant": "answer"}
    assert guess_columns(["messages", "question", "answer"], "chat") == {"messages": "messages"}
    assert guess_columns(["Question", "Answer"], "alpaca") == {"instruction": "Question", "output": "Answer"}
    assert guess_columns(["x", "y"], "chat") == {}


@pytest.mark.parametrize("form", ["alpaca", "completion", "chat"])
def test_an_answer_that_is_labelled_bad_is_never_trained(form):
    row = {
        "alpaca": {"instruction": "a", "output": "b"},
        "completion": {"prompt": "a", "completion": "b"},
        "chat": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    }[form]
    for name in ("label", "kto_tag"):
        assert [render(form, row | {name: bad}).reason for bad in (False, "false", "False")] == ["labelled_bad"] * 3
        assert not render(form, row | {name: True}).notes
    assert render(form, row | {"label": "sports"}).notes == (unread_note("label"),)
    assert isinstance(render(form, row | {"label": 0}), RenderedRow)


def test_a_label_that_is_the_answer_is_no_mark():
    assert trained(render("completion", {"prompt": "a", "label": "false"}, completion="label")) == ["false"]


@pytest.mark.parametrize("column", ["image", "images", "video", "videos", "audio", "audios"])
def test_rows_with_images_and_sounds_are_refused_and_never_trained_without_them(column):
    row = {"prompt": "What is it?", "completion": " a crow"}
    for value in ("crow.png", ["crow.png"], [{"bytes": b"x", "path": None}], {"path": "a.wav"}):
        refused = render("completion", row | {column: value})
        assert refused.reason == "invalid" and f"{column!r}, and only text is trained" in refused.what
    for value in (None, "", [], [None], {"bytes": None, "path": None}, math.nan):
        assert isinstance(render("completion", row | {column: value}), RenderedRow)


THINKING = CHATML.replace(
    "message['content']",
    "('<think>\\n\\n</think>\\n\\n' if message['role'] == 'assistant' else '') + message['content']",
)
PAIRED = {"prompt": "a", "one": "b", "two": ["c", "d"], "three": None, "four": "e"}


@pytest.mark.parametrize(
    ("form", "record", "options"),
    [
        ("completion", PAIRED, {"completion": ("one", "two", "three", "four")}),
        ("completion", PAIRED, {"columns": {"completion": ("one", "two", "three", "four")}}),
        ("completion", {"prompt": "a", "one": ["b", "c", "d", "", "e"]}, {"completion": "one"}),
        ("alpaca", {**PAIRED, "instruction": "a"}, {"columns": {"output": ("one", "two", "three", "four")}}),
        ("chat", PAIRED, {"columns": {"user": "prompt", "assistant": ("one", "two", "three", "four")}}),
        ("completion", PAIRED, {"completion": ("three", "one", "two", "four")}),
    ],
)
def test_of_several_answers_the_first_that_says_something_is_trained_and_the_others_are_kept(form, record, options):
    row = render(form, record, **options)
    assert row.text[slice(*row.answer)] == "b" and row.references == ("c", "d", "e")
    assert SEVERAL in row.notes
    assert not any("'one'" in note or "'two'" in note or "'four'" in note for note in row.notes)


def test_one_answer_alone_is_no_case_of_several():
    for completion in ("b", ["b"], ["", "b"]):
        row = render("completion", {"prompt": "a", "completion": completion})
        assert row.text[slice(*row.answer)] == "b" and not row.references and not row.notes


def test_further_answers_have_what_the_template_writes_around_the_first():
    thinking = gpt_like(THINKING)
    row = render(
        "chat",
        {"q": "a", "x": "Paris", "y": " Lyon \n"},
        tokenizer=thinking,
        columns={"user": "q", "assistant": ("x", "y")},
    )
    assert row.text[slice(*row.answer)] == "<think>\n\n</think>\n\nParis"
    assert row.references == ("<think>\n\n</think>\n\nLyon",)


def test_several_answers_that_are_empty_are_an_empty_answer():
    for record in ({"completion": ["", " "]}, {"completion": None, "more": ""}):
        row = render("completion", {"prompt": "a", **record}, completion=("completion", "more"))
        assert row.reason == "empty_completion"


def test_a_further_column_that_is_not_there_is_noted_and_one_that_is_no_text_is_refused():
    row = render("completion", {"prompt": "a", "one": "b"}, completion=("one", "two"))
    assert row.notes == ("column 'two', which the recipe names, is not there",)
    refused = render("completion", {"prompt": "a", "one": "b", "two": 3}, completion=("one", "two"))
    assert refused.reason == "invalid" and "column 'two' holds" in refused.what


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"two": "b", "three": "c"}, ("b", ("c",))),
        ({"one": ["b", None, "c"]}, ("b", ("c",))),
        ({"one": {"text": ["b", "c"], "answer_start": [3, 9]}}, ("b", ("c",))),
        ({"one": [None, ""], "two": "b"}, ("b", ())),
    ],
)
def test_answers_are_taken_from_the_columns_that_the_row_has(record, wanted):
    row = render("completion", {"prompt": "a", **record}, completion=("one", "two", "three"))
    assert (row.text[slice(*row.answer)], row.references) == wanted


@pytest.mark.parametrize("empty", [[], [None], {"text": [], "answer_start": []}, None, ""])
def test_a_list_without_an_answer_is_an_empty_answer(empty):
    assert render("completion", {"prompt": "a", "completion": empty}).reason == "empty_completion"


def test_a_value_that_is_no_text_is_told_of_the_column_that_has_it():
    refused = render("completion", {"q": "a", "a": ["x", 3]}, prompt="q", completion="a")
    assert refused.reason == "invalid" and "column 'a' holds a number" in refused.what
    refused = render("completion", {"q": ["x", 3], "a": "x"}, prompt="q", completion="a")
    assert "column 'q' holds a list of 2 texts" in refused.what


def test_a_column_of_a_pair_that_is_misspelled_is_told_with_a_recipe_that_works():
    columns = {"user": "frage", "assistant": "antwort"}
    refused = render("chat", {"frage": "a", "antwrt": "b"}, columns=columns)
    assert "no column 'antwort'" in refused.what and "{user: frage, assistant: antwrt}" in refused.cure
    refused = render("chat", {"dialog": []}, columns={"messages": "dialogue"})
    assert "no column 'dialogue'" in refused.what and "{messages: dialog}" in refused.cure


def test_a_label_that_is_a_number_is_noted():
    row = render("completion", {"prompt": "a", "completion": "b", "label": 0})
    assert row.notes == ("column 'label' holds a number and is not read: only false marks a bad answer",)
    assert not render("completion", {"prompt": "a", "completion": "b", "label": float("nan")}).notes


def test_several_prompts_or_answers_that_are_messages_are_told_what_they_are():
    refused = render("completion", {"prompt": ["a", "b"], "completion": "c"})
    assert refused.reason == "invalid" and "a list of 2 texts" in refused.what and "keep one of them" in refused.cure
    said = [{"role": "assistant", "content": "b"}]
    refused = render("completion", {"prompt": "a", "one": said, "two": "c"}, completion=("one", "two"))
    assert refused.reason == "invalid" and "holds messages" in refused.what
    assert "holds an object, not text" in render("completion", {"prompt": {"a": 1}, "completion": "b"}).what


def test_a_column_that_the_recipe_names_and_no_row_has_is_noted():
    row = render("alpaca", {"instruction": "a", "output": "b"}, columns={"system": "sytem"})
    assert row.notes == ("column 'sytem', which the recipe names, is not there",)


names = st.text(st.sampled_from("abcdef_é\n\x1b"), min_size=1, max_size=6)
values = st.text(max_size=8) | st.none() | st.integers() | st.booleans() | st.lists(st.text(max_size=3), max_size=2)
values |= st.dictionaries(names, st.text(max_size=3) | st.none(), max_size=2)
ROWS = {
    "alpaca": {"instruction": "a", "output": "b"},
    "completion": {"prompt": "a", "completion": "b"},
    "text": {"text": "a"},
    "chat": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
}


@pytest.mark.parametrize("form", ROWS)
@settings(deadline=None)
@given(extra=st.dictionaries(names, values, max_size=5))
def test_a_random_row_with_random_fields_loses_none_unsaid(form, extra):
    row = render(form, ROWS[form] | extra)
    assert isinstance(row, RenderedRow)
    said = {name for name in extra if unread_note(name) in row.notes}
    for name, value in extra.items():
        is_something = (isinstance(value, str) and value.strip()) or (isinstance(value, list) and value)
        is_something = is_something or (isinstance(value, dict) and any(item is not None for item in value.values()))
        assert bool(is_something) == (name in said), (name, value)
    assert all(line.isprintable() for line in row.notes)


def test_rows_with_names_of_their_own_do_not_fill_the_memory():
    read = mapping_of(SourceConfig(path="x.jsonl", format="text"), needs_prompt=False)
    notes = {note for number in range(1000) for note in read({"text": "a", f"key {number}": "x"}).notes}
    assert len(notes) == MOST_NAMES + 1 and MORE in notes


def test_all_unread_columns_are_one_line():
    notes = {unread_note("context"): 3, "another note": 1, unread_note("id"): 1200}
    assert unread_line(notes) == "columns that no option reads: 'context' (3 rows), 'id' (1,200 rows)"
    many = unread_line({unread_note(f"c{number}"): 1 for number in range(40)})
    assert many.endswith("and 28 more, which ledger.json lists") and len(many) < 300
    assert unread_line({"another note": 1}) == "" and not is_unread("another note")


def test_a_refused_row_is_a_refusal_whatever_else_it_has():
    assert isinstance(render("completion", {"prompt": "a", "other": "b"}), Refusal)
