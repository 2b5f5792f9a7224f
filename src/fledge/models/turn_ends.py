"""Finds the tokens that a chat template ends an assistant's turn with: serving stops on them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, Protocol

from fledge.errors import DataError

_MARK = "\ue000"
_ASKED = {"role": "user", "content": "\ue001"}
_SYSTEM = {"role": "system", "content": "\ue002"}
_ANSWER = {"role": "assistant", "content": _MARK}
_CALL = {"type": "function", "id": "call00001", "function": {"name": "f", "arguments": {"x": _MARK}}}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_RETURNED = {"role": "tool", "content": "\ue003", "tool_call_id": "call00001", "name": "f"}


class Rendering(Protocol):
    """A chat template's text for a conversation; raises DataError where the template refuses it."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> str: ...


def turn_ends(render: Rendering, tokens: Mapping[str, int], *, special: Collection[str]) -> set[int]:
    """Ids of the tokens that end a turn; `special` are those of `tokens` that are flagged so.

    A template may end a text with one token and a turn with another (Cohere, Phi-3). So what follows an answer in the
    middle of a conversation is compared with what follows a last answer: the last token that both begin with ends the
    turn. Where they have none in common, or nothing may follow, it is the last token after a last answer. Tokens of the
    generation prompt, and those that open a message, end none: some templates (Llama 3) write the next prompt always.
    An ordinary token after a call of a tool closes the call, and more calls may follow: it ends no turn.
    """
    answered = _end_of(render, tokens, _ANSWER, _ASKED)
    called = _end_of(render, tokens, _CALLING, _RETURNED)
    ends = {answered} if called not in special else {answered, called}
    return {tokens[token] for token in ends if token is not None}


def _end_of(
    render: Rendering, tokens: Mapping[str, int], answer: Mapping[str, Any], after: Mapping[str, Any]
) -> str | None:
    for before in ([_ASKED], [_SYSTEM, _ASKED]):
        last = _after_mark(render, [*before, answer])
        if last is None:
            continue
        opening = _opening(render, tokens, before)
        chain = [token for token in _tokens_in(last, tokens) if token not in opening]
        middle = _after_mark(render, [*before, answer, after]) or ""
        following = [token for token in _tokens_in(middle, tokens) if token not in opening]
        shared = list(takewhile(lambda pair: pair[0] == pair[1], zip(chain, following, strict=False)))
        return shared[-1][0] if shared else chain[-1] if chain else None
    return None


def _opening(render: Rendering, tokens: Mapping[str, int], before: Sequence[Mapping[str, Any]]) -> set[str]:
    """Tokens of the generation prompt; where it is always written, those that stand before the first message."""
    text, prompt = render(before), render(before, add_generation_prompt=True)
    if text == prompt:
        return set(_tokens_in(text.partition(before[-1]["content"])[0], tokens))
    return set(_tokens_in(prompt.removeprefix(text), tokens)) if prompt.startswith(text) else set()


def _after_mark(render: Rendering, messages: Sequence[Mapping[str, Any]]) -> str | None:
    try:
        text = render(messages)
    except DataError:
        return None
    return text.rpartition(_MARK)[2] if _MARK in text else None


def _tokens_in(text: str, tokens: Mapping[str, int]) -> Iterator[str]:
    """The tokens that stand in a text, in order."""
    by_length = sorted((token for token in tokens if token.strip()), key=len, reverse=True)
    yield from re.findall("|".join(map(re.escape, by_length)) or r"(?!)", text)
