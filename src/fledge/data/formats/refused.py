"""Says what can be done where a chat template refuses the order of a conversation's roles."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

_SYSTEM = ("system", "developer")
_OTHER = "set data.chat_template to a template that takes it, such as chatml"


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


def _takes(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]]) -> bool:
    try:
        tokenizer.render(messages)
    except DataError:
        return False
    return True
