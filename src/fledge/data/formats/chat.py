"""The chat format: OpenAI's messages and ShareGPT's conversations, rendered by the model's own template."""

from collections.abc import Mapping, Sequence
from typing import Any

from fledge.data.formats.messages import messages_of
from fledge.data.formats.turns import SPECIAL_IN_TEXT, Specials, find_turns
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

_TOOL_ROLES = ("tool", "function", "observation", "ipython")
_CHANGED = "the chat template changes what the assistant says, so that its tokens cannot be told from the template's"


def render_chat(record: Mapping[str, Any], *, tokenizer: TextTokenizer, specials: Specials) -> RenderedRow | Refusal:
    """A conversation as the template writes it; each assistant turn is trained, its end-of-turn token included."""
    messages = messages_of(record)
    if isinstance(messages, Refusal):
        return messages
    try:
        text = tokenizer.render(messages)
        turns = find_turns(messages, text, render=tokenizer.render)
        left_out = _left_out(messages, text, tokenizer)
    except DataError as error:
        return Refusal("invalid", error.problems[0].what, error.problems[0].cure)
    if turns is None:
        return Refusal("invalid", _CHANGED, "use a template that writes messages as they are (data.chat_template)")
    if any(role in _TOOL_ROLES for role in left_out):
        return Refusal("invalid", f"the chat template leaves out messages of role {', '.join(left_out)}")
    if any(start == stop or text[start:stop].isspace() for start, stop in turns):
        return Refusal("empty_completion", "an assistant turn is empty", text=text)
    return _with_ends(messages, text, turns, specials=specials, notes=_notes(record, messages, left_out, specials))


def _with_ends(
    messages: Sequence[Mapping[str, Any]],
    text: str,
    turns: Sequence[tuple[int, int]],
    *,
    specials: Specials,
    notes: tuple[str, ...],
) -> RenderedRow:
    """Stretch each turn to its end-of-turn token; ask for one where the template gives the last turn none."""
    spans = []
    for start, stop in turns:
        end = specials.turn_end.match(text, stop)
        spans.append((start, end.end() if end else stop))
    needs_end = messages[-1]["role"] == "assistant" and spans[-1][1] == turns[-1][1]
    answer = turns[-1] if turns else (len(text), len(text))
    return RenderedRow(text, tuple(spans), has_specials=True, ends_turn=needs_end, answer=answer, notes=notes)


def _left_out(messages: Sequence[Mapping[str, Any]], text: str, tokenizer: TextTokenizer) -> list[str]:
    """Roles of the messages that the template does not write at all."""
    roles = []
    for number, message in enumerate(messages):
        content = message["content"].strip()
        if message["role"] == "assistant" or content in text:
            continue
        mark = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)
        probe = [{**other, "content": mark} if other is message else other for other in messages]
        if mark not in tokenizer.render(probe):
            roles.append(messages[number]["role"])
    return sorted(set(roles))


def _notes(
    record: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], left_out: Sequence[str], specials: Specials
) -> tuple[str, ...]:
    notes = [f"the chat template leaves out messages of role {role}" for role in left_out]
    if record.get("tools"):
        notes.append("the tools column is not shown to the model")
    if any(specials.occurs_in(message["content"]) for message in messages):
        notes.append(SPECIAL_IN_TEXT)
    return tuple(notes)
