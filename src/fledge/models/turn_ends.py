"""Finds the tokens that a chat template ends an assistant's turn with: serving stops on them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from fledge.errors import DataError

_MARK = "\ue000"
_ASKED = {"role": "user", "content": "a"}
_SYSTEM = {"role": "system", "content": "a"}
_ANSWER = {"role": "assistant", "content": _MARK}
_CALL = {"type": "function", "id": "call00001", "function": {"name": _MARK, "arguments": {}}}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}


class Rendering(Protocol):
    """A chat template's text for a conversation; raises DataError where the template refuses it."""

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> str: ...


def turn_ends(render: Rendering, tokens: Mapping[str, int]) -> set[int]:
    """Ids of the tokens that end a turn.

    A template may end a text with one token and a turn with another (Cohere, Phi-3). What follows an answer in the
    middle of a conversation and what follows a last answer are compared: the last token that both begin with ends the
    turn. Where they have none in common, it is the first token after a last answer.
    """
    found = {_end_of(render, tokens, _ANSWER), _end_of(render, tokens, _CALLING)}
    return {index for index in found if index is not None}


def _end_of(render: Rendering, tokens: Mapping[str, int], answer: Mapping[str, Any]) -> int | None:
    for before in ([_ASKED], [_SYSTEM, _ASKED]):
        last = _after_mark(render, [*before, answer])
        if last is None:
            continue
        middle = _after_mark(render, [*before, answer, _ASKED]) or ""
        chain, following = _chain(last, tokens), _chain(middle, tokens)
        shared = [one for one, other in zip(chain, following, strict=False) if one == other]
        return tokens[shared[-1]] if shared else tokens[chain[0]] if chain else None
    return None


def _after_mark(render: Rendering, messages: Sequence[Mapping[str, Any]]) -> str | None:
    try:
        text = render(messages)
    except DataError:
        return None
    return text.rpartition(_MARK)[2] if _MARK in text else None


def _chain(text: str, tokens: Mapping[str, int]) -> list[str]:
    return list(_tokens_in(text, tokens))


def _tokens_in(text: str, tokens: Mapping[str, int]) -> Iterator[str]:
    """The tokens that stand in a text, in order."""
    by_length = sorted((token for token in tokens if token.strip()), key=len, reverse=True)
    place = 0
    while place < len(text):
        token = next((token for token in by_length if text.startswith(token, place)), None)
        if token is not None:
            yield token
        place += len(token) if token is not None else 1
