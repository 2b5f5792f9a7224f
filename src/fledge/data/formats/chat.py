"""The chat format: OpenAI's messages and ShareGPT's conversations, rendered by the model's own template."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fledge.data.formats.messages import messages_of
from fledge.data.formats.turns import SPECIAL_IN_TEXT, Specials, end_of, find_turns, unseen_marks
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
        row = _rendered(messages, tokenizer=tokenizer, specials=specials)
    except DataError as error:
        return Refusal("invalid", error.problems[0].what, error.problems[0].cure)
    if isinstance(row, Refusal):
        return row
    notes = (*row.notes, *tokenizer.template_notes, *_notes(record, messages, specials))
    return replace(row, notes=notes)


def _rendered(
    messages: Sequence[Mapping[str, Any]], *, tokenizer: TextTokenizer, specials: Specials
) -> RenderedRow | Refusal:
    text = tokenizer.render(messages)
    turns = find_turns(messages, text, render=tokenizer.render)
    left_out = _left_out(messages, text, tokenizer)
    if turns is None:
        return Refusal("invalid", _CHANGED, "use a template that writes messages as they are (data.chat_template)")
    if any(role in _TOOL_ROLES for role in left_out):
        return Refusal("invalid", f"the chat template leaves out messages of role {', '.join(left_out)}")
    if any(start == stop or text[start:stop].isspace() for start, stop in turns):
        return Refusal("empty_completion", "an assistant turn is empty", text=text)
    row = _with_ends(messages, text, turns, tokenizer=tokenizer, specials=specials)
    return replace(row, notes=tuple(f"the chat template leaves out messages of role {role}" for role in left_out))


def _with_ends(
    messages: Sequence[Mapping[str, Any]],
    text: str,
    turns: Sequence[tuple[int, int]],
    *,
    tokenizer: TextTokenizer,
    specials: Specials,
) -> RenderedRow:
    """Stretch each turn to its end-of-turn token; ask for one where the template gives the last turn none.

    There the last turn goes on to the end of the text, so that what the template writes before the end is learnt too:
    whoever generates comes to the end only through it.
    """
    speaking = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    spans, is_ended = [], True
    for turn, (start, stop) in zip(speaking, turns, strict=True):
        end = end_of(messages, text, turn=turn, stop=stop, render=tokenizer.render, specials=specials)
        spans.append((start, end or stop))
        is_ended = end is not None
    needs_end = messages[-1]["role"] == "assistant" and not is_ended
    if needs_end:
        spans[-1] = (spans[-1][0], len(text))
    answer = turns[-1] if turns else (len(text), len(text))
    return RenderedRow(text, tuple(spans), has_specials=True, ends_turn=needs_end, answer=answer)


def _left_out(messages: Sequence[Mapping[str, Any]], text: str, tokenizer: TextTokenizer) -> list[str]:
    """Roles of the messages that the template does not write at all."""
    roles = []
    for number, message in enumerate(messages):
        content = message["content"].strip()
        if message["role"] == "assistant" or content in text:
            continue
        mark = next(unseen_marks(text))
        probe = [{**other, "content": mark} if other is message else other for other in messages]
        if mark not in tokenizer.render(probe):
            roles.append(messages[number]["role"])
    return sorted(set(roles))


def _notes(record: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], specials: Specials) -> tuple[str, ...]:
    notes = ["the tools column is not shown to the model"] if record.get("tools") else []
    if any(specials.occurs_in(message["content"]) for message in messages):
        notes.append(SPECIAL_IN_TEXT)
    return tuple(notes)
