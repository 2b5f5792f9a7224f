"""Chat: every assistant turn is found, by rebuilding the rendered text, and nothing else is."""

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from fledge.data.formats.chat import render_chat
from fledge.data.formats.turns import find_turns, specials_of
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.tokenize import token_rows
from fledge.errors import DataError
from tests.unit.data.tiny import CHATML, Tiny, byte_level, gpt_like, llama_like

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


def render(messages, tokenizer=None, **others) -> RenderedRow | Refusal:
    tokenizer = tokenizer or gpt_like(CHATML)
    return render_chat({"messages": messages, **others}, tokenizer=tokenizer, specials=specials_of(tokenizer))


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
    tokenizer = gpt_like(CHATML)
    row = render_chat(record, tokenizer=tokenizer, specials=specials_of(tokenizer))
    assert row == render([{"role": "system", "content": "Be brief."}, USER, OWL])


def test_content_in_parts_of_text_is_joined():
    parts = [{"type": "text", "text": "Ow"}, {"type": "text", "text": "l."}]
    assert render([USER, {"role": "assistant", "content": parts}]) == render([USER, OWL])


def test_a_template_without_end_tokens_gets_an_eos_after_the_last_turn_only():
    row = render([USER, OWL, USER, OWL], gpt_like(BARE))
    assert trained(row) == ["Owl.", "Owl."]
    assert row.ends_turn
    assert not render([USER, OWL, USER], gpt_like(BARE)).ends_turn


def test_a_bos_after_the_answer_ends_no_turn():
    template = "{% for m in messages %}{{ bos_token + m.content }}{% endfor %}"
    assert trained(render([USER, OWL, USER], llama_like(template))) == ["Owl."]


def test_what_a_template_writes_before_the_end_is_trained_so_that_the_end_is_reached():
    template = "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
    row = render([USER, OWL, USER, OWL], gpt_like(template))
    assert trained(row) == ["Owl.", "Owl.\n\n"]
    assert row.ends_turn and row.text[slice(*row.answer)] == "Owl."


def test_the_opening_of_the_next_turn_is_no_end_of_this_one():
    template = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '\n' }}{% endfor %}"
    row = render([USER, OWL, USER, OWL], gpt_like(template))
    assert trained(row) == ["Owl.", "Owl.\n"]
    assert row.ends_turn


@pytest.mark.parametrize("glue", ["", " ", "{{ eos_token if m.role == 'assistant' }}"])
def test_a_token_in_the_next_messages_own_words_is_no_end_of_turn(glue):
    template = "{% for m in messages %}{{ m.content }}" + glue + "{% endfor %}"
    row = render([USER, OWL, {"role": "user", "content": "</s>?"}, OWL], gpt_like(template))
    assert trained(row)[0] == ("Owl.</s>" if "eos" in glue else "Owl.")


contents = st.text(st.characters(codec="utf-8") | st.sampled_from(" \n\t"), min_size=1, max_size=20)


@given(st.lists(st.tuples(contents, contents), min_size=1, max_size=4), st.sampled_from([CHATML, TRIMMING, BARE]))
@example([("0", "0\r\n0")], BARE)
def test_turns_are_found_whatever_the_words_are(turns, template):
    assume(all(answer.strip() for _, answer in turns))
    messages = [m for user, owl in turns for m in (USER | {"content": user}, OWL | {"content": owl})]
    row = render(messages, gpt_like(template))
    assert isinstance(row, RenderedRow), row
    answers = [answer if template is CHATML else answer.strip() for _, answer in turns]
    if template is BARE:
        answers = [answer.replace("\r\n", "\n").replace("\n\n", "\n") for answer in answers]
    assert len(row.spans) == len(turns)
    for (start, stop), answer in zip(row.spans, answers, strict=True):
        assert row.text[start:stop].startswith(answer)
        assert row.text[start + len(answer) : stop].strip() in ("", "<|im_end|>", "</s>")


def test_the_same_answer_twice_or_inside_the_question_is_no_trap():
    row = render([{"role": "user", "content": "Say Owl."}, OWL, {"role": "user", "content": "Owl."}, OWL])
    assert [start for start, _ in row.spans] == [row.text.index("assistant\nOwl.") + 10, row.text.rindex("Owl.")]


def test_an_end_token_written_in_an_answer_does_not_shorten_the_turn():
    row = render([USER, {"role": "assistant", "content": "a<|im_end|>b"}])
    assert trained(row) == ["a<|im_end|>b<|im_end|>"]
    assert row.notes


def test_private_use_characters_in_the_text_are_no_trap():
    row = render([{"role": "user", "content": "\ue000\ue001"}, {"role": "assistant", "content": "\ue001x\ue000"}])
    assert trained(row) == ["\ue001x\ue000<|im_end|>"]


def test_find_turns_refuses_what_it_cannot_prove():
    def render_cut(messages):
        return "".join(message["content"][-3:] for message in messages)

    def render_last(messages):
        return messages[-1]["content"]

    assert find_turns([USER, OWL], render_cut([USER, OWL]), render=render_cut) is None
    assert find_turns([OWL, OWL], render_last([OWL, OWL]), render=render_last) is None
    assert find_turns([USER, OWL], render_last([USER, OWL]), render=render_last) == [(0, 4)]


def test_hostile_white_space_ends_soon():
    messages = [message for _ in range(60) for message in (USER | {"content": " "}, OWL | {"content": " \n \n "})]

    def swallow(messages):
        text = "".join(message["content"] for message in messages)
        return text if "\ue000" in text else text + "x"

    assert find_turns(messages, swallow(messages), render=swallow) is None


@pytest.mark.parametrize(
    ("messages", "reason", "said"),
    [
        ([], "empty", "no message"),
        ("Hi", "invalid", "column 'messages' holds text, not a list"),
        (["Hi"], "invalid", "message 1: it is text, not an object"),
        ([{"content": "x"}], "invalid", "message 1: it has no role"),
        ([USER, {"role": "robot", "content": "x"}], "invalid", "message 2: unknown role 'robot'"),
        ([USER, {"role": "assistant"}], "invalid", "message 2: its content is null, not text"),
        ([USER, {"role": "assistant", "content": 4}], "invalid", "message 2: its content is a number"),
        ([USER, {"role": "assistant", "content": [{"type": "image"}]}], "invalid", "parts that are not text"),
        ([USER, {"role": "assistant", "content": "\ud800"}], "invalid", "half a surrogate pair"),
        ([USER, {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], "invalid", "tool_calls"),
        ([USER, {"role": "assistant", "content": " "}], "empty_completion", "empty"),
    ],
)
def test_a_conversation_that_is_none_is_refused(messages, reason, said):
    row = render(messages)
    assert isinstance(row, Refusal)
    assert (row.reason, said in row.what) == (reason, True), row


def test_a_record_without_messages_names_both_columns():
    tokenizer = gpt_like(CHATML)
    row = render_chat({"mesages": []}, tokenizer=tokenizer, specials=specials_of(tokenizer))
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


TURN_ENDS = ("<|im_end|>", "<|im_start|>", "<|end|>", "<end_of_turn>", "<start_of_turn>", "<|eot_id|>", "<|user|>")


def matrix(shared):
    folder = shared / "data" / "chat-templates"
    content = json.loads((folder / "rendered_matrix.json").read_text())
    for name, about in content["templates"].items():
        backend = Tokenizer.from_str(byte_level(trims=False).to_str())
        backend.add_special_tokens([token for token in (about["bos_token"], about["eos_token"], *TURN_ENDS) if token])
        template = (folder / about["file"]).read_text()
        tokens = {"bos_token": about["bos_token"] or None, "eos_token": about["eos_token"] or None}
        yield name, Tiny(backend, **tokens, template=template), content


def test_real_templates_render_exactly_as_expected(shared):
    seen = 0
    for name, tokenizer, content in matrix(shared):
        for case in (case for case in content["cases"] if case["template"] == name):
            messages = content["conversations"][case["conversation"]]
            try:
                found = tokenizer.render(messages, add_generation_prompt=case["add_generation_prompt"])
            except DataError:
                found = None
            expected = case["expected"] if isinstance(case["expected"], str) else None
            assert found == expected, case
            seen += 1
    assert seen == 216


def test_real_templates_train_every_assistant_turn_and_nothing_else(shared):
    seen, turns = 0, 0
    for name, tokenizer, content in matrix(shared):
        for case in (case for case in content["cases"] if case["template"] == name):
            if case["add_generation_prompt"] or not isinstance(case["expected"], str):
                continue
            messages = content["conversations"][case["conversation"]]
            answers = [message["content"] for message in messages if message["role"] == "assistant"]
            row = render(messages, tokenizer)
            assert row.text == case["expected"]
            assert len(row.spans) == len(answers)
            for span, answer in zip(trained(row), answers, strict=True):
                assert span.strip().startswith(answer.strip())
                end = span.strip()[len(answer.strip()) :].strip()
                assert end in tokenizer.special_tokens if name != "falcon-7b-instruct" else end == ""
            assert_tokens_cover(row, tokenizer)
            seen, turns = seen + 1, turns + len(answers)
    assert (seen, turns) == (90, 62)


def assert_tokens_cover(row, tokenizer):
    """A byte-level token that is trained holds some trained character, and each trained character is held."""
    [encoding] = tokenizer.encode_batch([row.text])
    [tokens] = token_rows([row], [encoding], tokenizer=tokenizer)
    inside = {index for start, stop in tokens.ranges for index in range(start, stop)}
    wanted = {character for start, stop in row.spans for character in range(start, stop)}
    for index, (start, stop) in enumerate(encoding.offsets):
        assert (index in inside) == bool(wanted & set(range(start, stop)))
