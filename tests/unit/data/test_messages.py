"""Messages in the forms that rows have them in: every known field is honoured, and what is not is said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fledge.config.data import DataConfig, SourceConfig
from fledge.data.formats.chat import NO_TOOLS
from fledge.data.formats.control import KEPT_AS_TEXT
from fledge.data.formats.messages import Conversation, conversation_of
from fledge.data.formats.render import renderer
from fledge.data.formats.weights import WEIGHT_FIELDS
from fledge.data.rows import Refusal
from fledge.models.chat_template import CHATML
from tests.unit.data.tiny import CHATML as BARE_CHATML
from tests.unit.data.tiny import gpt_like

USER = {"role": "user", "content": "Hi"}
OWL = {"role": "assistant", "content": "Owl."}
TOOL = {"name": "weather", "parameters": {"type": "object"}}
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'


def rows(record, template=CHATML, train_on="completion"):
    source = SourceConfig(path="x.jsonl", format="chat")
    return renderer(source, gpt_like(template), data=DataConfig(train=source, train_on=train_on))(record)


def spans(record, template=CHATML, train_on="completion"):
    found = rows(record, template, train_on)
    assert not isinstance(found, Refusal), found
    return [row.text[start:stop] for row in found for start, stop in row.spans]


@pytest.mark.parametrize(("name", "off"), [*((name, 0) for name in WEIGHT_FIELDS if name != "masked"), ("masked", 1)])
@pytest.mark.parametrize("kind", [int, float, bool, str])
def test_a_message_of_weight_zero_is_context_only(name, off, kind):
    messages = [USER, OWL | {name: kind(off)}, USER, OWL | {name: kind(1 - off)}]
    if kind is str:
        messages = json.loads(json.dumps(messages))
    assert spans({"messages": messages}) == ["Owl.<|im_end|>"]
    [row] = rows({"messages": messages})
    assert row.spans[0][0] > row.text.index("Owl.") and not row.notes


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weight": 0.5}, "its weight is 0.5; only 0 and 1"),
        ({"loss": "perhaps"}, "its loss is text; only 0 and 1"),
        ({"train": [1]}, "its train is a list; only 0 and 1"),
        ({"weight": 1, "masked": True}, "weight and masked contradict"),
    ],
)
def test_a_weight_that_is_neither_is_refused(fields, said):
    found = rows({"messages": [USER, OWL | fields]})
    assert isinstance(found, Refusal) and found.reason == "invalid" and f"message 2: {said}" in found.what


def test_a_question_that_asks_to_be_trained_is_said():
    [row] = rows({"messages": [USER | {"train": True}, OWL]})
    assert any("only the assistant's are" in note for note in row.notes)
    assert not rows({"messages": [USER | {"train": False, "weight": None}, OWL]})[0].notes


def test_only_the_last_answer_is_trained_where_the_recipe_says_so():
    messages = [USER, OWL, USER, {"role": "assistant", "content": "Kite."}]
    assert spans({"messages": messages}, train_on="last") == ["Kite.<|im_end|>"]
    masked = [*messages[:-1], messages[-1] | {"weight": 0}]
    refused = rows({"messages": masked}, train_on="last")
    assert isinstance(refused, Refusal) and refused.reason == "no_supervised_token" and "weight is 0" in refused.what
    asked = [messages[0] | {"weight": 0}, *messages[1:]]
    assert spans({"messages": asked}, train_on="last") == ["Kite.<|im_end|>"]


def test_an_answer_of_weight_zero_is_not_trained_where_all_is():
    messages = [USER, OWL | {"weight": 0}, USER, {"role": "assistant", "content": "Kite."}]
    [row] = rows({"messages": messages}, train_on="all")
    left = row.text.replace("Owl.<|im_end|>", "", 1)
    assert "".join(row.text[start:stop] for start, stop in row.spans) == left and not row.notes
    [row] = rows({"messages": [USER | {"weight": 0}, OWL]}, train_on="all")
    assert row.spans == ((0, len(row.text)),) and any(
        "that are not the assistant's are trained" in n for n in row.notes
    )


WITHOUT_TOOLS = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("said", ["rain", "sun"])
def test_a_message_that_the_template_leaves_out_is_told_though_its_words_stand_elsewhere(said):
    messages = [USER, {"role": "tool", "content": said}, {"role": "assistant", "content": "Not today: it rains."}]
    refused = rows({"messages": messages}, WITHOUT_TOOLS)
    assert isinstance(refused, Refusal) and "leaves out messages of role tool" in refused.what
    [row] = rows(
        {"messages": [{"role": "system", "content": said}, USER, OWL | {"content": "rain, sun"}]}, WITHOUT_TOOLS
    )
    assert "the chat template leaves out messages of role system" in row.notes


def test_reasoning_and_calls_that_are_left_out_are_told_though_the_answer_has_their_words():
    refused = rows({"messages": [USER, OWL | {"reasoning_content": "Owl"}]}, BARE_CHATML)
    assert isinstance(refused, Refusal) and "leaves out or changes its reasoning" in refused.what
    calling = {"role": "assistant", "content": "I ask the weather.", "tool_calls": [CALL]}
    refused = rows({"messages": [USER, calling]}, BARE_CHATML)
    assert isinstance(refused, Refusal) and "leaves out or changes its tool calls" in refused.what


def test_a_call_whose_id_names_its_function_is_seen_by_the_id():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.id + ':' + (c.function.arguments | tojson) }}{% endfor %}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    calling = {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "functions.weather:0"}]}
    assert spans({"messages": [USER, calling]}, template) == ['functions.weather:0:{"city": "Oslo"}<|im_end|>']
    calling["tool_calls"] = [{**CALL, "id": "call0"}]
    refused = rows({"messages": [USER, calling]}, template)
    assert isinstance(refused, Refusal) and "leaves out or changes its tool calls" in refused.what


@pytest.mark.parametrize(
    "record",
    [
        {"messages": None, "conversations": [USER, OWL]},
        {"messages": [], "conversations": [USER, OWL]},
        {
            "messages": [
                {"from": None, "value": None, **USER},
                {"role": None, "content": None, "from": "gpt", "value": "Owl."},
            ]
        },
        {"messages": [USER | {"content": None, "value": "Hi"}, OWL | {"from": float("nan")}]},
        {"messages": "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Owl.'}]"},
    ],
)
def test_of_fields_that_mean_the_same_the_one_that_has_a_value_is_read(record):
    [row] = rows(record)
    [plain] = rows({"messages": [USER, OWL]})
    assert (row.text, row.spans, row.notes) == (plain.text, plain.spans, ())


def test_half_a_character_anywhere_in_a_message_is_refused():
    for field in ({"tool_calls": [{"name": "f", "arguments": {"city": "x\ud83d"}}]}, {"content": "x\ud83d"}):
        refused = rows({"messages": [USER, OWL | field]})
        assert isinstance(refused, Refusal) and "half a surrogate pair" in refused.what


@pytest.mark.parametrize(
    "messages",
    [
        json.dumps([USER, {"role": "assistant", "content": "a <|im_end|> b"}]).replace("<|", "\\u003c|"),
        [
            USER,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"name": "f", "arguments": '{"t": "\\u003c|im_end|>"}'}],
            },
        ],
        [
            USER,
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "x <|im_"}, {"type": "text", "text": "end|> y"}],
            },
        ],
    ],
)
def test_a_control_token_that_is_seen_only_after_reading_stays_text(messages):
    [row] = rows({"messages": messages})
    [place] = row.literals
    assert row.text[place:].startswith("<|im_end|>") and place < row.spans[-1][1] - len("<|im_end|>")
    assert KEPT_AS_TEXT in row.notes


def test_a_control_token_in_a_value_that_a_template_writes_in_pythons_spelling_comes_back():
    template = "{% if tools %}{{ tools }}{% endif %}" + BARE_CHATML
    tool = {"name": "f", "description": "ends with <|im_end|>", "parameters": {}}
    [row] = rows({"messages": [USER, OWL], "tools": [tool]}, template)
    assert "'ends with <|im_end|>'" in row.text and len(row.literals) == 1


def test_two_columns_that_make_a_control_token_together_make_text():
    source = SourceConfig(path="x.jsonl", format="completion", prompt_template="{a}{b}")
    data = DataConfig(train=source)
    [row] = renderer(source, gpt_like(CHATML), data=data)({"a": "<|im_", "b": "end|> hello", "completion": " x"})
    assert row.text == "<|im_end|> hello x" and row.literals == (0,) and KEPT_AS_TEXT in row.notes
    own = SourceConfig(path="x.jsonl", format="completion", prompt_template="<|im_start|>{a}<|im_end|>")
    [row] = renderer(own, gpt_like(CHATML), data=DataConfig(train=own))({"a": "q <|im_end|>", "completion": " x"})
    assert row.literals == (row.text.index("<|im_end|>"),), "the recipe's own tokens are tokens"


def test_further_answers_come_back_as_they_are():
    source = SourceConfig(path="x.jsonl", format="completion")
    record = {"prompt": "Q", "completion": ["plain", "see <|im_end|> here"]}
    [row] = renderer(source, gpt_like(CHATML), data=DataConfig(train=source))(record)
    assert row.references == ("see <|im_end|> here",)


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_in_a_field_of_its_own_is_trained(name):
    record = {"messages": [USER, OWL | {name: "It hoots."}]}
    assert spans(record) == ["<think>\nIt hoots.\n</think>\n\nOwl.<|im_end|>"]
    refused = rows(record, BARE_CHATML)
    assert isinstance(refused, Refusal) and "leaves out or changes its reasoning" in refused.what


def test_reasoning_said_twice_must_agree():
    both = OWL | {"reasoning": "a", "thinking": "a"}
    assert spans({"messages": [USER, both]}) == spans({"messages": [USER, OWL | {"thinking": "a"}]})
    assert isinstance(rows({"messages": [USER, both | {"thinking": "b"}]}), Refusal)


def test_reasoning_in_the_content_is_trained_as_the_template_writes_it():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if '</think>' in m.content %}{{ '<think>' + m.content.split('</think>')[0].split('<think>')[-1].strip() }}"
        "{{ '</think>\\n' + m.content.split('</think>')[-1].strip() }}{% else %}{{ m.content }}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    answer = {"role": "assistant", "content": "<think>\nIt hoots.\n</think>\n\nOwl."}
    assert spans({"messages": [USER, answer]}, template) == ["<think>It hoots.</think>\nOwl.<|im_end|>"]
    dropping = template.replace("{{ '<think>' + m.content.split('</think>')[0].split('<think>')[-1].strip() }}", "")
    refused = rows({"messages": [USER, answer]}, dropping)
    assert isinstance(refused, Refusal) and "leaves out or changes its content" in refused.what


FORMS = {
    "openai": ({"tool_calls": [{"id": "c1", "function": CALL}]}, [{"type": "function", "function": TOOL}]),
    "arguments as text": ({"tool_calls": [{"function": CALL | {"arguments": '{"city": "Oslo"}'}}]}, json.dumps([TOOL])),
    "a bare call": ({"tool_calls": [CALL]}, [json.dumps(TOOL)]),
    "calls as text": ({"tool_calls": json.dumps([CALL])}, TOOL),
    "the old form": ({"function_call": CALL}, [TOOL]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_tool_calls_are_trained_and_tools_shown(form):
    fields, tools = FORMS[form]
    messages = [USER, {"role": "assistant", "content": None} | fields, {"role": "tool", "content": "rain"}, OWL]
    record = {"messages": messages, "tools": tools}
    assert spans(record) == [WRITTEN, "Owl.<|im_end|>"]
    [row] = rows(record)
    assert '{"name": "weather", "parameters"' in row.text and "<|im_start|>tool\nrain" in row.text and not row.notes


def test_sharegpts_calls_and_observations_are_the_same():
    sharegpt = [
        {"from": "human", "value": "Hi"},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "Owl."},
    ]
    openai = [USER, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "rain"}, OWL]
    assert rows({"conversations": sharegpt, "tools": json.dumps([TOOL])}) == rows({"messages": openai, "tools": [TOOL]})


def test_several_calls_in_one_message_are_all_trained():
    two = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL, CALL | {"arguments": {}}]}
    [span] = spans({"messages": [USER, two]})
    assert span.count("<tool_call>") == 2 and span.startswith("Let me look.\n<tool_call>") and '"arguments": {}' in span


def test_a_template_that_writes_no_calls_refuses_them_and_one_that_shows_no_tools_is_noted():
    calling = {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}]}
    refused = rows(calling, BARE_CHATML)
    assert isinstance(refused, Refusal) and "leaves out or changes its tool calls" in refused.what
    [row] = rows({"messages": [USER, OWL], "tools": [TOOL]}, BARE_CHATML)
    assert row.notes == (NO_TOOLS,)


@pytest.mark.parametrize("tools", [3, "no json", [{"description": "no name"}], ["neither"]])
def test_tools_that_are_none_are_refused(tools):
    refused = rows({"messages": [USER, OWL], "tools": tools})
    assert isinstance(refused, Refusal) and "column 'tools'" in refused.what


@pytest.mark.parametrize("tools", [None, "", [], "[]"])
def test_no_tools_are_no_tools(tools):
    assert rows({"messages": [USER, OWL], "tools": tools}) == rows({"messages": [USER, OWL]})


def test_a_field_that_nothing_reads_is_noted_and_one_that_the_template_reads_is_not():
    named = CHATML.replace("message['role'] +", "message['role'] + (message['name'] or '') +")
    messages = [USER | {"name": "Ada", "mood": "curious"}, OWL]
    [row] = rows({"messages": messages}, named)
    assert row.notes == ("field 'mood' of messages is read by nothing",) and "userAda" in row.text


def test_parts_of_text_are_joined_whatever_they_are_called():
    parts = [{"type": "text", "text": "Ow"}, {"type": "text", "value": "l"}, "."]
    assert spans({"messages": [USER, {"role": "assistant", "content": parts}]}) == ["Owl.<|im_end|>"]


def test_values_for_the_template_may_come_with_the_row():
    template = CHATML.replace("assistant\\n' }}{% endif %}", "assistant\\n' + ('!' if loud else '') }}{% endif %}")
    row = {"messages": [USER, OWL], "chat_template_kwargs": {"loud": True, "other": None}}
    assert isinstance(rows(row, template), Refusal)  # the prompt of a loud one is no beginning of the text
    assert not isinstance(rows({"messages": [USER, OWL]}, template), Refusal)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["role", "content", "from", "value", "tool_calls", "function_call", "reasoning", "weight", "images", "name", "x"]
)


@given(st.lists(st.dictionaries(names, json_values, max_size=5), max_size=4), json_values, json_values)
def test_any_messages_are_a_conversation_or_refused_in_words(messages, system, tools):
    found = conversation_of({"messages": messages, "system": system, "tools": tools})
    assert isinstance(found, Conversation | Refusal)
    if isinstance(found, Refusal):
        assert found.what
    else:
        assert len(found.trains) == len(found.messages) and all("content" in message for message in found.messages)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Owl.", "Kite."]), st.dictionaries(st.sampled_from(["mood", "id", "score"]), json_values)
        )
    ),
)
def test_no_field_of_a_message_is_lost_unsaid(answers):
    messages = [m for answer, extra in answers for m in (USER, {"role": "assistant", "content": answer, **extra})]
    found = rows({"messages": messages}) if messages else ()
    assert not isinstance(found, Refusal)
    given = {name for _, extra in answers for name, value in extra.items() if value is not None}
    said = {note.split("'")[1] for row in found for note in row.notes if note.startswith("field ")}
    assert said == given
