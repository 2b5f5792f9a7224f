"""A conversation's messages, from the forms that rows have them in, checked one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fledge.data.formats.columns import is_text
from fledge.data.formats.tools import calls_of, tools_of
from fledge.data.formats.weights import WEIGHT_FIELDS, trains
from fledge.data.kinds import kind_of
from fledge.data.rows import Refusal

# ShareGPT's names, and others that are common, for the roles that chat templates know.
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"} | {
    "ai": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool")
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_CONTENT_FIELDS = ("content", "value", "text")
_MEDIA_FIELDS = ("images", "image", "videos", "video", "audios", "audio")
_OWN_FIELDS = frozenset(
    (*_CONTENT_FIELDS, *WEIGHT_FIELDS, *REASONING_FIELDS, *_MEDIA_FIELDS, "role", "from", "tool_calls", "function_call")
)
_NOT_ASSISTANT = "a message that is not the assistant's asks to be trained; only the assistant's are"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row's conversation.

    Each message has `role` and `content` (text), and whatever else the row gives it. An assistant's may have
    `reasoning_content` (text) and `tool_calls`.
    """

    messages: tuple[dict[str, Any], ...]
    trains: tuple[bool, ...]
    """For each message, whether the row lets it be trained. Only the assistant's messages are."""
    tools: tuple[dict[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values for the chat template that the row brings (`chat_template_kwargs`)."""
    notes: tuple[str, ...] = ()
    context_only: frozenset[int] = frozenset()
    """Numbers of the messages, from 0, that ask not to be trained."""


def conversation_of(record: Mapping[str, Any]) -> Conversation | Refusal:
    """The conversation of a record that has `messages`.

    A `system` column beside them becomes the first message where there is none; `tools` (or `functions`) are what the
    assistant may call.
    """
    found = messages_of(record["messages"], where="column 'messages'")
    return found if isinstance(found, Refusal) else with_columns(found, record)


def with_columns(found: Conversation, record: Mapping[str, Any]) -> Conversation | Refusal:
    """The conversation with what other columns of its record add: system text, tools, values for the template."""
    tools = tools_of(record.get("tools") or record.get("functions"), where="column 'tools'")
    if isinstance(tools, Refusal):
        return tools
    options = record.get("chat_template_kwargs") or {}
    if not isinstance(options, Mapping):
        return Refusal("invalid", f"column 'chat_template_kwargs' holds {kind_of(options)}, not an object")
    named = {str(name): value for name, value in options.items() if value is not None}
    whole = replace(found, tools=tools, options=named)
    return _with_system(whole, record.get("system"))


def messages_of(value: Any, *, where: str) -> Conversation | Refusal:
    """A list of messages, checked one by one; `where` says what holds the list."""
    if not isinstance(value, list | tuple):
        return Refusal("invalid", f"{where} holds {kind_of(value)}, not a list of messages")
    if not value:
        return Refusal("empty", "the conversation has no message")
    messages: list[dict[str, Any]] = []
    trained, notes, context = [], [], []
    for number, item in enumerate(value, 1):
        message = _message(item)
        is_trained = trains(item) if isinstance(item, Mapping) else True
        for refusal in (message, is_trained):
            if isinstance(refusal, Refusal):
                return Refusal("invalid", f"message {number}: {refusal.what}", refusal.cure)
        assert isinstance(message, dict) and not isinstance(is_trained, Refusal)
        if is_trained is False:
            context.append(len(messages))
        messages.append(message)
        trained.append(is_trained is not False and message["role"] == "assistant")
        if is_trained is True and message["role"] != "assistant":
            notes.append(_NOT_ASSISTANT)
    return Conversation(
        tuple(messages), tuple(trained), notes=tuple(dict.fromkeys(notes)), context_only=frozenset(context)
    )


def _with_system(found: Conversation, system: Any) -> Conversation | Refusal:
    if system is None or system == "" or system != system:  # NaN, as tables write what is missing
        return found
    if not isinstance(system, str) or not is_text(system):
        return Refusal("invalid", f"column 'system' holds {kind_of(system)}, not text")
    if found.messages[0]["role"] in ("system", "developer"):
        what = "there is a system message, and a system text of the row or of the recipe too"
        return Refusal("invalid", what, "keep one of the two")
    messages = ({"role": "system", "content": system}, *found.messages)
    context = frozenset(number + 1 for number in found.context_only)
    return replace(found, messages=messages, trains=(False, *found.trains), context_only=context)


def _message(item: Any) -> dict[str, Any] | Refusal:
    if not isinstance(item, Mapping):
        return Refusal("invalid", f"it is {kind_of(item)}, not an object with role and content")
    role = _first_filled(item, ("role", "from"))
    if not isinstance(role, str):
        return Refusal("invalid", "it has no role", 'each message is {"role": ..., "content": ...}')
    known = _ROLES.get(role.lower(), role.lower())
    if known not in KNOWN_ROLES:
        return Refusal("invalid", f"unknown role {role!r}", f"known: {', '.join((*KNOWN_ROLES, *_ROLES))}")
    for name in _MEDIA_FIELDS:
        if item.get(name):
            return Refusal("invalid", f"it has {name}, and only text can be trained on")
    calls = calls_of(_called(item, role.lower()))
    if isinstance(calls, Refusal):
        return calls
    if calls and known != "assistant":
        return Refusal("invalid", f"a message of role {known} has tool calls; only the assistant calls tools")
    content = "" if role.lower() == "function_call" else _content_of(item, may_lack=bool(calls))
    reasoning = _reasoning_of(item)
    for text in (content, reasoning):
        if isinstance(text, Refusal):
            return text
    others = {key: value for key, value in item.items() if key not in _OWN_FIELDS and value is not None}
    thought = {REASONING_FIELDS[0]: reasoning} if reasoning else {}
    return {**others, "role": known, "content": content, **thought, **({"tool_calls": calls} if calls else {})}


def _called(item: Mapping[str, Any], role: str) -> Any:
    """Where a message has its tool calls: a field, or ShareGPT's own role for them."""
    if role == "function_call":
        return _first_filled(item, _CONTENT_FIELDS) or item.get("tool_calls")
    return item.get("tool_calls") or item.get("function_call")


def _content_of(item: Mapping[str, Any], *, may_lack: bool) -> str | Refusal:
    if not may_lack and not any(name in item for name in _CONTENT_FIELDS):
        return Refusal("invalid", "it has no content", 'each message is {"role": ..., "content": ...}')
    return text_in(_first_filled(item, _CONTENT_FIELDS))


def are_messages(value: Any) -> bool:
    """Whether a value is a list of objects, which is how messages are written, and not empty."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _first_filled(item: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of these fields that has one: tables give each message the fields of all."""
    found = (item[name] for name in names if name in item)
    return next((value for value in found if value is not None and value == value), None)


def text_in(value: Any) -> str | Refusal:
    """A content as text: a text, or parts of text put together; null, NaN and nothing are the empty text."""
    if value is None or value != value:
        return ""
    if isinstance(value, list | tuple):
        parts = [_part(part) for part in value]
        if not all(isinstance(part, str) for part in parts):
            return Refusal("invalid", "its content has parts that are not text", "only text can be trained on")
        value = "".join(str(part) for part in parts)
    if not isinstance(value, str):
        return Refusal("invalid", f"its content is {kind_of(value)}, not text")
    return value if is_text(value) else Refusal("invalid", "its content holds half a surrogate pair")


def _part(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or part.get("type", "text") not in ("text", None):
        return None
    found = [part[name] for name in ("text", "value", "content") if isinstance(part.get(name), str)]
    return found[0] if found else None


def _reasoning_of(item: Mapping[str, Any]) -> str | Refusal:
    """The reasoning that a message brings in a field of its own, the empty text where it brings none."""
    given = {name: item[name] for name in REASONING_FIELDS if item.get(name)}
    texts = {name: text_in(value) for name, value in given.items()}
    for name, text in texts.items():
        if isinstance(text, Refusal):
            return Refusal("invalid", text.what.replace("content", name, 1))
    if len(set(texts.values())) > 1:
        return Refusal("invalid", f"{' and '.join(texts)} say different things", "keep one of them")
    return next((str(text) for text in texts.values()), "")
