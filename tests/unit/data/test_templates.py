"""The one rule on every template at hand: a turn is trained from its generation prompt's end to its stop token."""

import json
import random

import pytest

from fledge.data.formats.chat import APART, chat_of
from fledge.data.formats.dialect import dialect_of
from fledge.data.rows import Refusal
from fledge.errors import DataError
from fledge.models.chat_template import CHATML as OUR_CHATML
from tests.unit.data.served import conversation, disagreement, tokenizer_for, traits_of, unguarded

TURN_ENDS = (
    "<|im_end|> <|im_start|> <|end|> <end_of_turn> <start_of_turn> <|eot_id|> <|user|> <|start_header_id|> "
    "<|end_header_id|> <|assistant|>"
).split()
OPEN, CLOSE = "{{ '<|im_start|>' + m.role + '\n' }}", "{{ '<|im_end|>\n' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
THOUGHT = "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}"
CALL = "{{ '<call>' + c.function.name + ' ' + c.function.arguments | tojson + '</call>' }}"
CALLS = "{% for c in m.tool_calls or [] %}" + CALL + "{% endfor %}"
BODY = OPEN + "{{ m.content }}" + CALLS + CLOSE

# Templates of our own, each with one trait that templates of current models have.
TRAITS = {
    "plain": "{% for m in messages %}" + BODY + "{% endfor %}" + PROMPT,
    "thinks on the last turn only": "{% for m in messages %}"
    + OPEN
    + "{% if m.role == 'assistant' and loop.last %}" + THOUGHT + "{% endif %}"
    + "{{ m.content }}" + CALLS + CLOSE + "{% endfor %}" + PROMPT,
    "thinks where a row has reasoning": "{% for m in messages %}" + OPEN
    + "{% if m.reasoning_content %}" + THOUGHT + "{% endif %}{{ m.content }}" + CALLS + CLOSE + "{% endfor %}" + PROMPT,
    "begins to think in the prompt": "{% for m in messages %}" + OPEN
    + "{% if m.role == 'assistant' %}" + THOUGHT + "{% endif %}{{ m.content }}" + CALLS + CLOSE + "{% endfor %}"
    + PROMPT.replace("assistant\n", "assistant\n<think>\n"),
    "a space before the answer": "{% for m in messages %}{{ m.role | upper + ': ' + m.content | trim }}" + CALLS
    + "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    "another end on the last turn": "{% for m in messages %}" + OPEN + "{{ m.content }}" + CALLS
    + "{{ '<|end|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}" + PROMPT,
    "two ends": "{% for m in messages %}" + OPEN + "{{ m.content }}" + CALLS + "{{ '<|end|>' }}" + CLOSE
    + "{% endfor %}" + PROMPT,
    "an end of text after the last end": "{% for m in messages %}" + BODY + "{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% else %}{{ eos_token }}{% endif %}",
    "no end": "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
    "the next message's opening ends it": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "always prompts": "{% for m in messages %}" + BODY + "{% endfor %}{{ '<|im_start|>assistant\n' }}",
    "headers that are no prompt": "{% for m in messages %}{{ '<|im_start|>' + m.role }}"
    + "{% if m.role == 'assistant' and m.reasoning_content %}"
    + "{{ '<|channel|>analysis<|message|>' + m.reasoning_content + '<|end|><|im_start|>assistant' }}{% endif %}"
    + "{{ '<|channel|>final<|message|>' + m.content }}" + CALLS
    + "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}",
    "drops earlier reasoning": "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    + "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}" + OPEN
    + "{% if m.reasoning_content and loop.index0 > ns.last %}" + THOUGHT + "{% endif %}{{ m.content }}" + CALLS + CLOSE
    + "{% endfor %}" + PROMPT,
    "the system text in the last question": "{% for m in messages %}{% if m.role != 'system' %}" + OPEN
    + "{% if m.role == 'user' and loop.last and messages[0].role == 'system' %}"
    + "{{ messages[0].content + '\n' }}{% endif %}"
    + "{{ m.content }}" + CALLS + CLOSE + "{% endif %}{% endfor %}" + PROMPT,
    "our chatml": OUR_CHATML,
}  # fmt: skip
SPECIALS = [*TURN_ENDS, "<|channel|>", "<|message|>", "<|return|>", "<|user|>"]
ROUNDS = 60
"""Conversations for each template here; the folder of real ones gets 300."""


def failures(tokenizer, rounds, seed=0):
    rng, traits = random.Random(seed), traits_of(tokenizer)
    found = []
    for _ in range(rounds):
        messages, tools = conversation(rng, traits)
        if why := disagreement(tokenizer, messages, tools):
            found.append((why, messages))
    return found


@pytest.mark.parametrize("name", TRAITS)
def test_a_turn_is_trained_from_its_prompts_end_to_its_stop_token(name):
    tokenizer = tokenizer_for(TRAITS[name], SPECIALS, bos="<s>", eos="</s>")
    found = failures(tokenizer, ROUNDS)
    assert not found, f"{len(found)} of {ROUNDS}, first: {found[0]}"


def test_the_templates_above_have_the_traits_that_they_are_named_by():
    def rows(name, *answers):
        messages = []
        for answer in answers:
            messages += [{"role": "user", "content": "Hi"}, {"role": "assistant", **answer}]
        chat = chat_of(tokenizer_for(TRAITS[name], SPECIALS, bos="<s>", eos="</s>"), "completion")
        return unguarded(chat)({"messages": messages})

    def spans(name, *answers):
        return [[row.text[a:b] for a, b in row.spans] for row in rows(name, *answers)]

    owl, kite = {"content": "Owl."}, {"content": "Kite.", "reasoning_content": "It flies."}
    assert spans("plain", owl, owl) == [["Owl.<|im_end|>"] * 2]
    assert spans("thinks on the last turn only", owl, kite) == [
        ["<think>\n\n</think>\n\nOwl.<|im_end|>"],
        ["<think>\nIt flies.\n</think>\n\nKite.<|im_end|>"],
    ]
    assert spans("begins to think in the prompt", kite) == [["It flies.\n</think>\n\nKite.<|im_end|>"]]
    assert spans("a space before the answer", owl, owl) == [[" Owl.</s>"] * 2]
    assert spans("another end on the last turn", owl, owl) == [["Owl.<|end|>"], ["Owl.<|end|>"]]
    assert spans("two ends", owl, owl) == [["Owl.<|end|><|im_end|>"] * 2]
    assert spans("an end of text after the last end", owl, owl) == [["Owl.<|im_end|>", "Owl.<|im_end|>\n</s>"]]
    assert spans("always prompts", owl, owl) == [["Owl.<|im_end|>"] * 2]
    final = "<|channel|>final<|message|>"
    assert spans("headers that are no prompt", owl, kite) == [
        [final + "Owl.<|return|>"],
        [f"<|channel|>analysis<|message|>It flies.<|end|><|im_start|>assistant{final}Kite.<|return|>"],
    ]
    assert spans("drops earlier reasoning", kite, owl) == [
        ["<think>\nIt flies.\n</think>\n\nKite.<|im_end|>"],
        ["Owl.<|im_end|>"],
    ]
    assert APART in rows("drops earlier reasoning", kite, owl)[0].notes
    assert rows("no end", owl)[0].ends_turn


def test_the_templates_above_take_reasoning_and_tools_as_they_say():
    takes = {name: traits_of(tokenizer_for(text, SPECIALS, bos="<s>", eos="</s>")) for name, text in TRAITS.items()}
    assert sum(traits.reasoning for traits in takes.values()) == 6
    assert sum(traits.tools for traits in takes.values()) == 13
    assert not takes["the system text in the last question"].system and takes["plain"].system


def real_templates(shared):
    folder = shared / "data" / "chat-templates"
    content = json.loads((folder / "rendered_matrix.json").read_text())
    for name, about in content["templates"].items():
        tokens = {"bos": about["bos_token"] or None, "eos": about["eos_token"] or None}
        yield name, tokenizer_for((folder / about["file"]).read_text(), list(TURN_ENDS), **tokens), content


def test_real_templates_render_exactly_as_expected(shared):
    seen = 0
    for name, tokenizer, content in real_templates(shared):
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


@pytest.mark.slow
def test_real_templates_train_every_turn_as_serving_would_write_it(shared):
    seen = 0
    for name, tokenizer, _ in real_templates(shared):
        found = failures(tokenizer, 300)
        assert not found, f"{name}: {len(found)} of 300, first: {found[0]}"
        seen += 1
    assert seen == 18


@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        ("{{ m.tool_calls[0].function.arguments | tojson }}", {"x": "é"}),
        ("{{ '```' + m.tool_calls[0].function.arguments }}", '{"x": "é"}'),
        ("{{ m.tool_calls[0].function.arguments }}", '{"x": "é"}'),
    ],
)
def test_arguments_of_a_call_are_given_in_the_form_that_the_template_writes_as_json(template, arguments):
    named = "{{ m.tool_calls[0].function.name }}" + template
    text = "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}" + named + "{% endif %}{% endfor %}"
    tokenizer = tokenizer_for(text, SPECIALS, bos=None, eos="</s>")
    assert dialect_of(tokenizer).has_text_arguments == isinstance(arguments, str)
    call = {"function": {"name": "x", "arguments": {"x": "é"}}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    [row] = unguarded(chat_of(tokenizer, "completion"))({"messages": messages})
    assert '{"x": "é"}' in row.text


@pytest.mark.parametrize(("marks", "is_noted"), [("{{ m.content + '<|im_end|>' }}", False), ("{{ m.content }}", True)])
def test_tags_of_the_template_that_mark_something_else_are_told(marks, is_noted):
    inside = "{% generation %}" + marks + "{% endgeneration %}" + "{{ '<|im_end|>' }}" * is_noted
    text = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}" + inside
    text += "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{% endfor %}" + PROMPT
    chat = chat_of(tokenizer_for(text, SPECIALS, bos=None, eos="</s>"), "completion")
    assert [note for note in chat.template_notes if "generation" in note and "'b'" in note] == (
        list(chat.template_notes) if is_noted else []
    )
    assert len(chat.template_notes) == is_noted
    assert not failures(chat.tokenizer, 5)


@pytest.mark.parametrize("name", ["thinks on the last turn only", "headers that are no prompt", "no end"])
def test_an_answer_that_says_nothing_is_dropped_whatever_the_template_writes_around_it(name):
    chat = chat_of(tokenizer_for(TRAITS[name], SPECIALS, bos="<s>", eos="</s>"), "completion")
    for content in ("", " \n", None):
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]
        found = unguarded(chat)({"messages": messages})
        assert isinstance(found, Refusal) and found.reason == "empty_completion"
