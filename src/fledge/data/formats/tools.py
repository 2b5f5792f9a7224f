"""Functions that a model may call: the forms that rows have them in, as the one form that chat templates read."""

import json
from collections.abc import Mapping
from typing import Any

from fledge.data.kinds import kind_of
from fledge.data.rows import Refusal

Call = dict[str, Any]
_A_CALL = 'write each call as {"function": {"name": ..., "arguments": {...}}}'
_A_TOOL = 'write each tool as {"type": "function", "function": {"name": ..., "parameters": {...}}}'


def tools_of(value: Any, *, where: str) -> tuple[dict[str, Any], ...] | Refusal:
    """The tools of a row as OpenAI writes them, from a list or from its JSON; none where the value is empty.

    A bare function, {"name": ..., "parameters": ...}, is put into {"type": "function", "function": ...}.
    """
    found = _as_list(value)
    if isinstance(found, Refusal):
        return Refusal("invalid", f"{where}: {found.what}", _A_TOOL)
    tools = []
    for number, item in enumerate(found, 1):
        tool = _parsed(item)
        if not isinstance(tool, Mapping) or not (isinstance(tool.get("function"), Mapping) or "name" in tool):
            what = f"{where}: tool {number} is {kind_of(tool)} without a function's name"
            return Refusal("invalid", what, _A_TOOL)
        tools.append(dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)})
    return tuple(tools)


def calls_of(value: Any) -> list[Call] | Refusal:
    """The calls of a message as OpenAI writes them, from a list, one call, or their JSON; arguments as an object."""
    found = _as_list(value)
    if isinstance(found, Refusal):
        return Refusal("invalid", f"its tool calls are no list: {found.what}", _A_CALL)
    calls = []
    for number, item in enumerate(found, 1):
        call = _call(_parsed(item))
        if call is None:
            return Refusal("invalid", f"its tool call {number} names no function", _A_CALL)
        calls.append(call)
    return calls


def with_text_arguments(calls: list[Call]) -> list[Call]:
    """The calls with their arguments as JSON text, for templates that put it into the text as it is."""
    return [
        {**call, "function": {**call["function"], "arguments": _as_text(call["function"]["arguments"])}}
        for call in calls
    ]


def words_of(calls: list[Call]) -> list[str]:
    """What must be seen in a text that writes these calls: the functions' names."""
    return [call["function"]["name"] for call in calls]


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _call(item: Any) -> Call | None:
    if not isinstance(item, Mapping):
        return None
    function = item.get("function", item)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    arguments = _parsed(function.get("arguments", function.get("parameters")))
    written = {"name": function["name"], "arguments": {} if arguments in (None, "") else arguments}
    identity = {"id": item["id"]} if isinstance(item.get("id"), str) else {}
    return {**identity, "type": "function", "function": written}


def _as_list(value: Any) -> list[Any] | Refusal:
    found = _parsed(value)
    if found is None or found == "":
        return []
    if isinstance(found, Mapping):
        return [found]
    if isinstance(found, list | tuple):
        return list(found)
    if isinstance(found, str):
        return Refusal("invalid", "it is text, and no JSON")
    return Refusal("invalid", f"it is {kind_of(found)}, not a list")


def _parsed(value: Any) -> Any:
    """JSON in a text as the value that it says; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
