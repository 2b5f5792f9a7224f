"""Says what can be done where a chat template refuses the order of a conversation's roles."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from fledge.data.formats.turns import Difference
from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

_THINKING = ("enable_thinking", "thinking", "add_thinking_prompt")
"""Names by which templates are told whether the model is to reason."""
_SYSTEM = ("system", "developer")
_OTHER = "set data.chat_template: chatml, or a Jinja file that takes it"


def role_cure(messages: Sequence[Mapping[str, Any]], tokenizer: TextTokenizer) -> str:
    """The cure for a conversation that the template refuses, found by asking the template about changed ones."""
    roles = [message["role"] for message in messages]
    without_system = [message for message in messages if message["role"] not in _SYSTEM]
    if len(without_system) < len(messages) and _takes(tokenizer, without_system):
        where = roles.index(next(role for role in roles if role in _SYSTEM)) + 1
        return f"put the system text of message {where} at the beginning of the first user message, or {_OTHER}"
    rest = [message["role"] for message in without_system]
    if rest[:1] == ["assistant"]:
        return f"put a user message before the assistant's first one, or leave that one out, or {_OTHER}"
    twice = next((number for number, (one, two) in enumerate(pairwise(roles), 1) if one == two), None)
    if twice is not None:
        return f"messages {twice} and {twice + 1} are both of role {roles[twice]}: join them to one, or {_OTHER}"
    return _OTHER


def prompt_cure(
    messages: Sequence[Mapping[str, Any]],
    difference: Difference,
    *,
    said: Sequence[Mapping[str, Any]],
    tokenizer: TextTokenizer,
) -> str:
    """The cure for a template where the text with the answer does not begin with the generation prompt.

    `said` are the messages in the template's dialect. Options of the template that are known from many are tried.
    """
    other = "set data.chat_template: chatml, or a Jinja file whose prompt is such a beginning"
    for name in _THINKING:
        for value in (False, True):
            if tokenizer.template_names(name) and _agrees(tokenizer, said, {name: value}):
                return f"set data.chat_template_kwargs: {{{name}: {str(value).lower()}}}, or {other}"
    if "think" in difference.prompt_goes_on.lower() or "think" in difference.text_goes_on.lower():
        return f"give each answer its reasoning_content, or {other}"
    if messages[0]["role"] in _SYSTEM:
        return f"leave the system message out, or {other}"
    return other


def _agrees(tokenizer: TextTokenizer, said: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> bool:
    try:
        prompt = tokenizer.render(said[:-1], add_generation_prompt=True, options=options)
        return tokenizer.render(said, options=options).startswith(prompt)
    except DataError:
        return False


def _takes(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]]) -> bool:
    try:
        tokenizer.render(messages)
    except DataError:
        return False
    return True
