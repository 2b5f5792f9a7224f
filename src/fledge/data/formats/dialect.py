"""Finds out, by asking it, how a chat template wants its input and what it writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fledge.data.formats.messages import REASONING_FIELDS, Conversation
from fledge.data.formats.tools import with_text_arguments
from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

Messages = Sequence[Mapping[str, Any]]
_MARK = "\ue0ff"
_USER = {"role": "user", "content": "a"}
_CALL = {"type": "function", "id": "call00001", "function": {"name": "f", "arguments": {"x": _MARK}}}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_PYTHON = str({"x": _MARK})
"""The arguments in Python's spelling, which a template writes that takes them for text."""
_TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a chat template reads, as its answers to short conversations show."""

    reasoning: str | None
    """The field of an assistant's message whose text is written as reasoning; None where no field is."""
    has_text_arguments: bool
    """Whether a call's arguments must be JSON text, because an object is written in Python's spelling or not at all."""
    has_parts: bool
    """Whether a message's content must be a list of parts, because a text is not written."""
    shows_tools: bool


def dialect_of(tokenizer: TextTokenizer) -> Dialect:
    """The dialect of a tokenizer's chat template."""
    says = {"role": "assistant", "content": _MARK}
    has_parts = not _writes(tokenizer, [_USER, says]) and _writes(tokenizer, in_parts([_USER, says]))
    shape = in_parts if has_parts else list
    reasoning = [
        name
        for name in REASONING_FIELDS
        if _writes(tokenizer, shape([_USER, {"role": "assistant", "content": "b", name: _MARK}]))
    ]
    text_call = {**_CALLING, "tool_calls": with_text_arguments([_CALL])}
    as_object, as_text = (_rendered(tokenizer, shape([_USER, call])) for call in (_CALLING, text_call))
    return Dialect(
        reasoning=reasoning[0] if reasoning else None,
        has_text_arguments=_MARK in as_text and (_MARK not in as_object or _PYTHON in as_object),
        has_parts=has_parts,
        shows_tools=_rendered(tokenizer, shape([_USER]), tools=[_TOOL]) != _rendered(tokenizer, shape([_USER])),
    )


def spoken(conversation: Conversation, dialect: Dialect) -> list[dict[str, Any]]:
    """The messages in the template's own dialect."""
    messages = []
    for message in conversation.messages:
        said = dict(message)
        thought = said.pop(REASONING_FIELDS[0], None)
        if thought is not None:
            said[dialect.reasoning or REASONING_FIELDS[0]] = thought
        if dialect.has_text_arguments and "tool_calls" in said:
            said["tool_calls"] = with_text_arguments(said["tool_calls"])
        messages.append(said)
    return in_parts(messages) if dialect.has_parts else messages


def in_parts(messages: Messages) -> list[dict[str, Any]]:
    """The messages with each content as a list of one part of text."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def _writes(tokenizer: TextTokenizer, messages: Messages) -> bool:
    return _MARK in _rendered(tokenizer, messages)


def _rendered(tokenizer: TextTokenizer, messages: Messages, *, tools: Sequence[Mapping[str, Any]] = ()) -> str:
    try:
        return tokenizer.render(messages, tools=tools)
    except DataError:
        return ""
