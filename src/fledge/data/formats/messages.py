"""A conversation's messages, from either of the two common forms, checked one by one."""

from collections.abc import Mapping
from typing import Any

from fledge.data.formats.columns import is_text, missing
from fledge.data.kinds import kind_of
from fledge.data.rows import Refusal

# ShareGPT's names for the roles that chat templates know.
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "observation", "ipython")
_SHAREGPT_KEYS = ("from", "value")


def messages_of(record: Mapping[str, Any]) -> list[dict[str, Any]] | Refusal:
    """The messages with `role` and `content` (text), from `messages` or from ShareGPT's `conversations`.

    A `system` column beside them becomes the first message where there is none.
    """
    column = "messages" if "messages" in record else "conversations"
    if column not in record:
        refusal = missing(record, "messages")
        return Refusal("invalid", refusal.what.replace("'messages'", "'messages' or 'conversations'"), refusal.cure)
    value = record[column]
    if not isinstance(value, (list, tuple)):
        return Refusal("invalid", f"column {column!r} holds {kind_of(value)}, not a list of messages")
    if not value:
        return Refusal("empty", "the conversation has no message")
    messages = []
    for number, item in enumerate(value, 1):
        message = _message(item)
        if isinstance(message, Refusal):
            return Refusal("invalid", f"message {number}: {message.what}", message.cure)
        messages.append(message)
    return _with_system(messages, record.get("system"))


def _with_system(messages: list[dict[str, Any]], system: Any) -> list[dict[str, Any]] | Refusal:
    if system is None or system == "":
        return messages
    if not isinstance(system, str) or not is_text(system):
        return Refusal("invalid", f"column 'system' holds {kind_of(system)}, not text")
    if messages[0]["role"] == "system":
        return Refusal("invalid", "there is a system column and a system message too", "keep one of the two")
    return [{"role": "system", "content": system}, *messages]


def _message(item: Any) -> dict[str, Any] | Refusal:
    if not isinstance(item, Mapping):
        return Refusal("invalid", f"it is {kind_of(item)}, not an object with role and content")
    role = item["role"] if "role" in item else item.get("from")
    if not isinstance(role, str):
        return Refusal("invalid", "it has no role", 'each message is {"role": ..., "content": ...}')
    role = _ROLES.get(role, role)
    if role not in KNOWN_ROLES:
        return Refusal("invalid", f"unknown role {role!r}", f"known: {', '.join((*KNOWN_ROLES, *_ROLES))}")
    if item.get("tool_calls") or item.get("function_call"):
        cure = "write the call as the message's content, as the model is to write it"
        return Refusal("invalid", "its tool_calls have no text of their own that could be trained exactly", cure)
    content = _content(item["content"] if "content" in item else item.get("value"))
    if isinstance(content, Refusal):
        return content
    return {**_others(item), "role": role, "content": content}


def _others(item: Mapping[str, Any]) -> dict[str, Any]:
    """What a template may ask of a message besides: a tool's name, the id of a call."""
    return {key: value for key, value in item.items() if key not in _SHAREGPT_KEYS and value is not None}


def _content(value: Any) -> str | Refusal:
    if isinstance(value, (list, tuple)):
        parts = [
            part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else None
            for part in value
        ]
        if not parts or not all(isinstance(part, str) for part in parts):
            return Refusal("invalid", "its content has parts that are not text", "only text can be trained on")
        value = "".join(str(part) for part in parts)
    if not isinstance(value, str):
        return Refusal("invalid", f"its content is {kind_of(value)}, not text")
    return value if is_text(value) else Refusal("invalid", "its content holds half a surrogate pair")
