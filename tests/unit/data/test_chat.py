"""Chat: every assistant turn is found, by rebuilding the rendered text, and nothing else is."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fledge.config.data import DataConfig, SourceConfig
from fledge.data.formats.chat import APART
from fledge.data.formats.control import KEPT_AS_TEXT
from fledge.data.formats.render import renderer
from fledge.data.rows import Refusal, RenderedRow
from tests.unit.data.tiny import CHATML, gpt_like, llama_like

USER = {"role": "user", "content": "Hi"}
OWL = {"role": "assistant", "content": "Owl."}
TRIMMING = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content | trim + ' ' }}"
    "{{ eos_token if m.role == 'assistant' }}{% endfor %}"
)
BARE = (
    "{% for m in messages %}{{ '\n\n' + m.role + ': ' }}"
    "{{ m.content.strip().replace('\\r\\n', '\\n').replace('\\n\\n', '\\n') }}{% endfor %}"
)


def rendered(record, tokenizer=None, *, train_on="completion"):
    """All rows of a record, or its refusal."""
    source = SourceConfig(path="x.jsonl", format="chat")
    return renderer(source, tokenizer or gpt_like(CHATML), data=DataConfig(train=source, train_on=train_on))(record)


def render(messages, tokenizer=None, **others) -> RenderedRow | Refusal:
    """The one row of a conversation, or its refusal."""
    rows = rendered({"messages": messages, **others}, tokenizer)
    if isinstance(rows, Refusal):
        return rows
    [row] = rows
    return row


def trained(row):
    assert isinstance(row, RenderedRow), row
    return [row.text[start:stop] for start, stop in row.spans]


def test_each_assistant_turn_is_trained_with_its_end_token_and_nothing_else():
    row = render([USER, OWL, USER, {"role": "assistant", "content": " Kite "}])
    assert trained(row) == ["Owl.<|im_end|>", " Kite <|im_end|>"]
    assert row.text[slice(*row.answer)] == " Kite "
    assert row.has_specials and not row.ends_turn


def test_sharegpt_is_the_same_as_messages():
    record = {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Owl."}],
        "system": "Be brief.",
    }
    assert rendered(record) == rendered({"messages": [{"role": "system", "content": "Be brief."}, USER, OWL]})


def test_content_in_parts_of_text_is_joined():
    parts = [{"type": "text", "text": "Ow"}, {"type": "text", "text": "l."}]
    assert render([USER, {"role": "assistant", "content": parts}]) == render([USER, OWL])


def test_without_end_tokens_each_answer_is_a_row_of_its_own_that_ends_with_an_eos():
    first, last = rendered({"messages": [USER, OWL, USER, OWL]}, gpt_like(BARE))
    assert trained(first) == trained(last) == ["\n\nassistant: Owl."]
    assert first.ends_turn and last.ends_turn
    assert first.text == "\n\nuser: Hi\n\nassistant: Owl." and last.text == first.text * 2
    assert APART in first.notes and APART not in last.notes


def test_a_conversation_that_ends_with_a_question_trains_the_answers_before_it():
    row = render([USER, OWL, USER])
    assert trained(row) == ["Owl.<|im_end|>"] and row.text.endswith("user\nHi<|im_end|>\n") and not row.ends_turn


def test_what_the_generation_prompt_does_not_write_is_trained():
    template = "{% for m in messages %}{{ bos_token + m.content }}{% endfor %}"
    first, last = rendered({"messages": [USER, OWL, USER, OWL]}, llama_like(template))
    assert trained(first) == trained(last) == ["<s>Owl."]


def test_what_a_template_writes_before_the_end_is_trained_so_that_the_end_is_reached():
    template = (
        "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
    )
    rows = rendered({"messages": [USER, OWL, USER, OWL]}, gpt_like(template))
    assert [trained(row) for row in rows] == [["Owl.\n\n"], ["Owl.\n\n"]]
    assert all(row.ends_turn and row.text[slice(*row.answer)] == "Owl.\n\n" for row in rows)


def test_the_opening_of_the_next_turn_is_no_end_of_this_one():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    rows = rendered({"messages": [USER, OWL, USER, OWL]}, gpt_like(template))
    assert [trained(row) for row in rows] == [["Owl.\n"], ["Owl.\n"]] and all(row.ends_turn for row in rows)


@pytest.mark.parametrize("glue", ["", " ", "{{ eos_token if m.role == 'assistant' }}"])
def test_a_token_in_the_next_messages_own_words_is_no_end_of_turn(glue):
    template = "{% for m in messages %}{{ m.content }}" + glue + "{% endfor %}"
    rows = rendered({"messages": [USER, OWL, {"role": "user", "content": "</s>?"}, OWL]}, gpt_like(template))
    spans = [span for row in rows for span in trained(row)]
    assert spans == (["Owl.</s>"] * 2 if "eos" in glue else [f"Owl.{glue}"] * 2)
    assert len(rows) == (1 if "eos" in glue else 2)


def test_two_tokens_that_end_a_text_and_a_turn_are_both_trained():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.content + '<unk><|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
    )
    row = render([USER, OWL, USER, OWL], gpt_like(template))
    assert trained(row) == ["Owl.<unk><|im_end|>"] * 2
    assert row.text[slice(*row.answer)] == "Owl.<unk>"


def test_an_end_of_text_after_the_last_turns_end_is_trained_too():
    template = CHATML.replace("{% if add", "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}{% if add")
    row = render([USER, OWL, USER, OWL], gpt_like(template))
    assert trained(row) == ["Owl.<|im_end|>", "Owl.<|im_end|>\n</s>"]
    assert row.text[slice(*row.answer)] == "Owl."


def test_a_template_that_always_writes_the_next_prompt_trains_none_of_it():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}"
        "{{ '<|im_start|>assistant\n' }}"
    )
    row = render([USER, OWL, USER, OWL], gpt_like(template))
    assert trained(row) == ["Owl.<|im_end|>"] * 2 and not row.ends_turn
    no_end = render([USER, OWL], gpt_like(template.replace("<|im_end|>", "\n")))
    assert isinstance(no_end, Refusal) and "no token on which serving stops" in no_end.what


contents = st.text(st.characters(codec="utf-8") | st.sampled_from(" \n\t"), min_size=1, max_size=20)


@given(st.lists(st.tuples(contents, contents), min_size=1, max_size=4), st.sampled_from([CHATML, TRIMMING, BARE]))
@example([("0", "0\r\n0")], BARE)
def test_turns_are_found_whatever_the_words_are(turns, template):
    assume(all(answer.strip() for _, answer in turns))
    messages = [m for user, owl in turns for m in (USER | {"content": user}, OWL | {"content": owl})]
    rows = rendered({"messages": messages}, gpt_like(template))
    assert not isinstance(rows, Refusal), rows
    answers = [answer if template is CHATML else answer.strip() for _, answer in turns]
    if template is BARE:
        answers = [answer.replace("\r\n", "\n").replace("\n\n", "\n") for answer in answers]
    before, after = {CHATML: ("", "<|im_end|>"), TRIMMING: ("[assistant]", " </s>"), BARE: ("\n\nassistant: ", "")}[
        template
    ]
    assert [span for row in rows for span in trained(row)] == [before + answer + after for answer in answers]
    assert len(rows) == (len(turns) if template is BARE else 1)


def test_the_same_answer_twice_or_inside_the_question_is_no_trap():
    row = render([{"role": "user", "content": "Say Owl."}, OWL, {"role": "user", "content": "Owl."}, OWL])
    assert [start for start, _ in row.spans] == [row.text.index("assistant\nOwl.") + 10, row.text.rindex("Owl.")]


def test_an_end_token_written_in_an_answer_is_text_and_does_not_shorten_the_turn():
    row = render([USER, {"role": "assistant", "content": "a<|im_end|>b"}])
    assert trained(row) == ["a<|im_end|>b<|im_end|>"]
    assert row.literals == (row.text.index("<|im_end|>b"),) and KEPT_AS_TEXT in row.notes


def test_private_use_characters_in_the_text_are_no_trap():
    row = render([{"role": "user", "content": "\ue000\ue001"}, {"role": "assistant", "content": "\ue001x\ue000</s>"}])
    assert trained(row) == ["\ue001x\ue000</s><|im_end|>"]


def test_a_text_that_holds_every_mark_of_the_first_range_is_no_trap():
    every = "".join(map(chr, range(0xE000, 0xF900)))
    row = render([{"role": "user", "content": every}, {"role": "assistant", "content": "x</s>"}])
    assert trained(row) == ["x</s><|im_end|>"] and [row.text[place] for place in row.literals] == ["<"]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content[-3:] + eos_token }}{% endfor %}",
        "{% for m in messages %}{{ m.content | upper + eos_token }}{% endfor %}",
        "{{ messages[0].content }}{% if messages[1:] %}{{ eos_token }}{% endif %}",
    ],
)
def test_a_template_that_changes_or_leaves_out_an_answer_is_refused(template):
    row = render([USER, OWL], gpt_like(template))
    assert isinstance(row, Refusal) and "leaves out or changes its content" in row.what


def test_a_prompt_that_is_no_beginning_of_the_text_is_refused_with_the_difference():
    row = render([USER, OWL], gpt_like(CHATML.replace("assistant\\n'", "assistant\\n<think>\\n'")))
    assert isinstance(row, Refusal) and row.reason == "invalid"
    assert "the prompt goes on with '<think>\\n' where the text has 'Owl.<|im_end|>\\n'" in row.what
    assert "reasoning_content" in row.cure


def test_hostile_white_space_ends_soon():
    messages = [m for _ in range(60) for m in (USER | {"content": " " * 999}, OWL | {"content": ". \n \n " * 99})]
    assert len(trained(render(messages))) == 60


@pytest.mark.parametrize(
    ("messages", "reason", "said"),
    [
        ([], "empty", "no message"),
        ("Hi", "invalid", "column 'messages' holds text, not a list"),
        (["Hi"], "invalid", "message 1: it is text, not an object"),
        ([{"content": "x"}], "invalid", "message 1: it has no role"),
        ([USER, {"role": "robot", "content": "x"}], "invalid", "message 2: unknown role 'robot'"),
        ([USER, {"role": "assistant"}], "invalid", "message 2: it has no content"),
        ([USER, {"role": "assistant", "content": None}], "empty_completion", "empty"),
        ([USER, {"role": "assistant", "content": 4}], "invalid", "message 2: its content is a number"),
        ([USER, {"role": "assistant", "content": [{"type": "image"}]}], "invalid", "parts that are not text"),
        ([USER, {"role": "assistant", "content": "\ud800"}], "invalid", "half a surrogate pair"),
        ([USER, {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], "invalid", "names no function"),
        ([USER | {"tool_calls": [{"name": "f"}]}, OWL], "invalid", "only the assistant calls tools"),
        ([USER | {"images": ["a.png"]}, OWL], "invalid", "only text can be trained on"),
        ([USER, {"role": "assistant", "content": " "}], "empty_completion", "empty"),
    ],
)
def test_a_conversation_that_is_none_is_refused(messages, reason, said):
    row = render(messages)
    assert isinstance(row, Refusal)
    assert (row.reason, said in row.what) == (reason, True), row


def test_a_record_without_messages_names_both_columns():
    row = rendered({"mesages": []})
    assert isinstance(row, Refusal)
    assert "no column 'messages' or 'conversations'; present: 'mesages'" in row.what


def test_a_conversation_without_an_answer_trains_nothing():
    assert trained(render([USER])) == []


def test_the_templates_own_refusal_is_told_in_its_words():
    row = render([USER, OWL], gpt_like("{{ raise_exception('roles must alternate') }}"))
    assert isinstance(row, Refusal)
    assert "roles must alternate" in row.what


def test_messages_that_the_template_leaves_out_are_noted_and_tools_refused():
    template = "{% for m in messages if m.role in ('user', 'assistant') %}{{ m.content + eos_token }}{% endfor %}"
    tokenizer = gpt_like(template)
    row = render([{"role": "system", "content": "Be brief."}, USER, OWL], tokenizer)
    assert row.notes == ("the chat template leaves out messages of role system",)
    tool = render([USER, {"role": "tool", "content": "42 birds"}, OWL], tokenizer)
    assert isinstance(tool, Refusal)
    assert "leaves out messages of role tool" in tool.what
    assert trained(render([USER, {"role": "tool", "content": "42 birds"}, OWL])) == ["Owl.<|im_end|>"]
