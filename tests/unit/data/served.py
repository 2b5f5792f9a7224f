"""Random conversations, and what serving would give to a model and read from it, computed without Fledge's rule."""

import random
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import jinja2
from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from fledge.data.formats.chat import Chat, chat_of, chat_render
from fledge.data.formats.control import Render, control_of, keep_as_text
from fledge.data.formats.dialect import dialect_of, in_parts
from fledge.data.rows import Refusal, RenderedRow
from fledge.models.chat_template import with_clock
from tests.unit.data.tiny import Tiny, byte_level

FAILURES = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
EDGES = ("", " ", "\n", "\t ", " \n\n", "\r\n", "\u3000", "\u00a0")
WORDS = (
    "42 007 3.14 1,000 Owl kite 東京都 你好，世界 שלום مرحبا بالعالم naïve 🙂 👩‍🚀 🇳🇴 x=1; {a} {{b}} {% c %} </p> \\n "
    '"quoted" it\'s # ## *** a\nb line\n\nbreak tab\tstop <b> <|not_a_token|> [brackets] \ue000 ﬁ é'
).split(" ")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Which city."}}},
    },
}
Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Traits:
    """What a template takes, as the test found out by asking it."""

    system: bool
    tools: bool
    reasoning: bool


def words(rng: random.Random) -> str:
    said = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6)))
    return rng.choice(EDGES) + said + rng.choice(EDGES)


def conversation(rng: random.Random, traits: Traits) -> tuple[Messages, list[dict[str, Any]]]:
    """A random conversation of one to four rounds, with what the template takes, and the tools that it has."""
    messages: Messages = []
    if traits.system and rng.random() < 0.5:
        messages.append({"role": "system", "content": words(rng)})
    has_tools = traits.tools and rng.random() < 0.5
    for number in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": words(rng)})
        if has_tools and rng.random() < 0.4:
            call = {"name": "weather", "arguments": {"city": rng.choice(WORDS)}}
            name = f"call{number:05d}"
            messages.append(
                _answer(rng, traits, content="", tool_calls=[{"id": name, "type": "function", "function": call}])
            )
            messages.append({"role": "tool", "content": words(rng), "name": "weather", "tool_call_id": name})
        messages.append(_answer(rng, traits, content=words(rng)))
    if rng.random() < 0.2:
        messages.append({"role": "user", "content": words(rng)})
    return messages, [TOOL] if has_tools else []


def _answer(rng: random.Random, traits: Traits, **message: Any) -> dict[str, Any]:
    if traits.reasoning and rng.random() < 0.5:
        message["reasoning_content"] = words(rng).strip()
    return {"role": "assistant", **message}


@dataclass(frozen=True)
class Served:
    """One answer as a server sees it: the prompt that it gives, and the text with the answer and its end."""

    prompt: str
    text: str


def rendered(tokenizer: Tiny, messages: Messages, tools: list[dict[str, Any]], *, prompt: bool = False) -> str | None:
    """The template's text by transformers alone; None where the template refuses.

    Contents are lists of parts where a text is not written, as for the templates of vision models.
    """
    has_parts = dialect_of(tokenizer).has_parts
    try:
        [text], _ = render_jinja_template(
            [in_parts(messages) if has_parts else messages],
            tools=tools or None,
            chat_template=tokenizer.template,
            add_generation_prompt=prompt,
            bos_token=tokenizer.bos_token or "",
            eos_token=tokenizer.eos_token or "",
        )
    except FAILURES:
        return None
    return text


def served(tokenizer: Tiny, messages: Messages, tools: list[dict[str, Any]]) -> list[Served] | None:
    """Every answer of a conversation as serving would write it; None where the template cannot be served so."""
    found = []
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = rendered(tokenizer, messages[:number], tools, prompt=True)
            text = rendered(tokenizer, messages[: number + 1], tools)
            if prompt is None or text is None or not text.startswith(prompt):
                return None
            found.append(Served(prompt, text))
    return found


def unguarded(chat: Chat) -> Render:
    """How a chat renders records whose control tokens nobody looks for."""
    return chat_render(chat, lambda render: render)


def disagreement(tokenizer: Tiny, messages: Messages, tools: list[dict[str, Any]]) -> str | None:
    """What of a conversation's rows is not as serving would have it; None where all is."""
    chat = chat_of(tokenizer, "completion")
    guard = partial(keep_as_text, control=control_of(tokenizer))
    rows = chat_render(chat, guard)({"messages": messages, "tools": tools})
    expected = served(tokenizer, messages, tools)
    if isinstance(rows, Refusal):
        whole = rendered(tokenizer, messages, tools)
        is_right = rows.reason != "invalid" or expected is None or whole is None or "leaves out" in rows.what
        is_right = is_right or "no token on which serving stops" in rows.what
        return None if is_right else f"refused: {rows.what}"
    if expected is None:
        return "trained, although its prompt is no beginning of the text"
    return _compare(tokenizer, rows, expected)


def _compare(tokenizer: Tiny, rows: tuple[RenderedRow, ...], expected: list[Served]) -> str | None:
    stops = [token for token, index in tokenizer.special_tokens.items() if index in tokenizer.stop_ids]
    ended = re.compile(rf"(?s).*(?:{'|'.join(map(re.escape, stops))})\Z")
    left = list(expected)
    for row in rows:
        for place, (start, stop) in enumerate(row.spans):
            turn = next((one for one in left if one.prompt == row.text[:start]), None)
            if turn is None:
                return f"no prompt ends where {row.text[start:stop]!r} begins"
            left.remove(turn)
            is_last = place == len(row.spans) - 1
            appended = row.ends_turn and is_last and stop == len(row.text)
            trained = row.text[:stop]
            if not appended and not ended.fullmatch(trained):
                return f"{row.text[start:stop]!r} does not end with a token on which serving stops"
            if not turn.text.startswith(trained) and not any(trained == turn.text + stop for stop in stops):
                return f"{trained!r} is not what serving would write: {turn.text!r}"
            rest = turn.text[len(trained) :]
            if appended and rest:
                return f"{rest!r} is not trained"
    return f"{len(left)} answers are trained nowhere, the first after {left[0].prompt[-40:]!r}" if left else None


def traits_of(tokenizer: Tiny) -> Traits:
    """What a template takes: a system message, tools, reasoning; asked by rendering."""
    user, owl = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    with_system = served(tokenizer, [{"role": "system", "content": "c"}, user, owl, user, owl], [])
    call = {"id": "call00000", "type": "function", "function": {"name": "weather", "arguments": {"city": "\ue0aa"}}}
    returned = {"role": "tool", "content": "d", "name": "weather", "tool_call_id": "call00000"}
    calling = [user, {"role": "assistant", "content": "", "tool_calls": [call]}, returned, owl]
    with_tools = served(tokenizer, calling, [TOOL])
    thinking = rendered(tokenizer, [user, owl | {"reasoning_content": "\ue0aa"}], [])
    return Traits(
        system=bool(with_system),
        tools=bool(with_tools) and "\ue0aa" in with_tools[0].text,
        reasoning="\ue0aa" in (thinking or ""),
    )


def tokenizer_for(
    template: str, tokens: list[str], *, bos: str | None, eos: str | None, ordinary: list[str] | None = None
) -> Tiny:
    """A small tokenizer with a template, the special tokens that it writes, and ordinary ones."""
    backend = Tokenizer.from_str(byte_level(trims=False).to_str())
    backend.add_tokens(ordinary or [])
    backend.add_special_tokens([token for token in dict.fromkeys((*tokens, bos, eos)) if token])
    # a template that writes the time is told one moment, or two renderings differ by a second
    return Tiny(backend, bos_token=bos, eos_token=eos, template=with_clock(template))
