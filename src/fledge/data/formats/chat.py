"""The chat format: a conversation as the model's own template writes it, its answers trained as serving writes them."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fledge.config.data import TrainOn
from fledge.data.formats.columns import is_text
from fledge.data.formats.control import Render, Rendered, strings_of, unseen_marks
from fledge.data.formats.dialect import Dialect, Messages, dialect_of, spoken
from fledge.data.formats.messages import REASONING_FIELDS, Conversation, conversation_of
from fledge.data.formats.refused import prompt_cure, role_cure
from fledge.data.formats.tools import words_of
from fledge.data.formats.turns import Difference, Endings, Turn, endings_of, has_words, turn_of
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

HALF = "it holds half a surrogate pair"
_ALL_TRAINED = "messages of weight 0 that are not the assistant's are trained, for data.train_on is all"
APART = "the chat template writes an earlier answer differently when more follows; it is trained as a row of its own"
NO_TOOLS = "the chat template does not show the row's tools to the model"
_MOST_ASKED = 4096
_THINK = re.compile(r"</?think>")
_TEMPLATE_CURE = "set data.chat_template: chatml, or a Jinja file that writes it"


@dataclass(frozen=True, slots=True)
class Chat:
    """How conversations are rendered: a tokenizer with its chat template, what the template reads, what is trained."""

    tokenizer: TextTokenizer
    dialect: Dialect
    endings: Endings
    train_on: TrainOn
    template_notes: tuple[str, ...] = ()
    asked: dict[Any, bool] = field(default_factory=dict, compare=False, repr=False)
    """Which parts of a message the template writes, by the shape of the conversation."""

    def rows_of(self, conversation: Conversation) -> Rendered:
        """The rows of a conversation.

        An answer is trained from where its generation prompt ends up to and with the token on which serving stops. It
        is trained in the text of the whole conversation where it stands there as serving would write it, else in a row
        of its own, which ends with it.
        """
        try:
            return self._rows_of(conversation)
        except DataError as error:
            problem = error.problems[0]
            cure = problem.cure or role_cure(conversation.messages, self.tokenizer)
            return Refusal("invalid", problem.what, cure)

    def _rows_of(self, conversation: Conversation) -> Rendered:
        said = spoken(conversation, self.dialect)
        text = self._text(conversation, said)
        if not is_text(text):
            return Refusal("invalid", HALF, "a \\ud800 to \\udfff escape stands alone; write the character whole")
        turns = self._turns(conversation, said, self._trained(conversation))
        if isinstance(turns, Refusal):
            return turns
        if self.train_on == "last" and set(_answers_of(conversation)[-1:]) & conversation.context_only:
            return Refusal("no_supervised_token", "the last answer is context only: its weight is 0", text=text)
        if any(_is_empty(conversation.messages[turn.message]) for turn in turns):
            return Refusal("empty_completion", "an assistant turn is empty", text=text)
        left_out = self._left_out(conversation)
        if any(role == "tool" for role in left_out):
            return Refusal("invalid", "the chat template leaves out messages of role tool", _TEMPLATE_CURE)
        notes = (
            *(f"the chat template leaves out messages of role {role}" for role in left_out),
            *self.template_notes,
            *conversation.notes,
            *([NO_TOOLS] if conversation.tools and not self.dialect.shows_tools else []),
            *_unread_fields(conversation, self.tokenizer),
        )
        first = conversation.messages[0]
        system = first["content"] if first["role"] in ("system", "developer") else ""
        options = json.dumps(dict(conversation.options), sort_keys=True, default=str)
        rows = tuple(replace(row, system=system, options=options) for row in self._placed(text, turns, notes))
        return self._without_context(conversation, said, rows) if self.train_on == "all" else rows

    def _left_out(self, conversation: Conversation) -> list[str]:
        """Roles of messages that are not the assistant's and that the template does not write."""
        messages = conversation.messages
        others = [n for n, one in enumerate(messages) if one["role"] != "assistant" and one["content"].strip()]
        left = (n for n in others if not self._writes(conversation, n, "content", stop=len(messages)))
        return sorted({messages[n]["role"] for n in left})

    def _without_context(
        self, conversation: Conversation, said: Messages, rows: tuple[RenderedRow, ...]
    ) -> tuple[RenderedRow, ...] | Refusal:
        """With train_on: all, the row without the answers that ask not to be trained."""
        numbers = [number for number in _answers_of(conversation) if number in conversation.context_only]
        masked = self._turns(conversation, said, numbers)
        if isinstance(masked, Refusal):
            return masked
        [row] = rows
        if len(numbers) < len(conversation.context_only):
            row = replace(row, notes=(*row.notes, _ALL_TRAINED))
        for turn in masked:
            end = turn.end_in(row.text)
            if end is None:
                what = (
                    f"message {turn.message + 1}: it is context only, and stands otherwise in the text that is trained"
                )
                return Refusal("invalid", what, "write data.train_on: completion")
            row = replace(row, spans=_without(row.spans, (turn.start, end)))
        return (row,)

    def _turns(self, conversation: Conversation, said: Messages, numbers: Sequence[int]) -> list[Turn] | Refusal:
        turns = []
        for number in numbers:
            turn = self._turn(conversation, said, number)
            if isinstance(turn, Refusal):
                return turn
            turns.append(turn)
        return turns

    def _trained(self, conversation: Conversation) -> list[int]:
        """Numbers of the messages that are trained."""
        answers = _answers_of(conversation)
        if self.train_on == "last":
            answers = answers[-1:]
        return [number for number in answers if conversation.trains[number]]

    def _turn(self, conversation: Conversation, said: Messages, number: int) -> Turn | Refusal:
        prompt = self.prompt(conversation, said[:number])
        text = self._text(conversation, said[: number + 1])
        turn = turn_of(number, prompt=prompt, text=text, endings=self.endings)
        if isinstance(turn, Difference):
            what = f"message {number + 1}: the text with the answer does not begin with the generation prompt: {turn}"
            messages = conversation.messages[: number + 1]
            cure = prompt_cure(messages, turn, said=said[: number + 1], tokenizer=self.tokenizer)
            return Refusal("invalid", what, cure)
        return self._checked(conversation, turn)

    def _checked(self, conversation: Conversation, turn: Turn) -> Turn | Refusal:
        """The turn, where the template writes all that the message says; a refusal where it leaves something out."""
        message, written = conversation.messages[turn.message], turn.text[turn.start :]
        parts = {"content": [part for part in _THINK.split(message["content"]) if part.strip()]}
        parts["reasoning"] = [message[REASONING_FIELDS[0]]] if REASONING_FIELDS[0] in message else []
        parts["tool calls"] = words_of(message.get("tool_calls", []))
        for name, words in parts.items():
            if not words:
                continue
            is_seen = all(has_words(part, written) for part in words)
            if not (is_seen and self._writes(conversation, turn.message, name, stop=turn.message + 1)):
                what = f"message {turn.message + 1}: the chat template leaves out or changes its {name}"
                return Refusal("invalid", what, _TEMPLATE_CURE)
        return turn

    def _writes(self, conversation: Conversation, number: int, part: str, *, stop: int) -> bool:
        """Whether the template writes this part of message `number`, where the conversation ends before `stop`.

        Its words may stand elsewhere in the text too, so the template is asked with a mark in their place: once for
        conversations of one shape.
        """
        messages = conversation.messages[:stop]
        shape = tuple((message["role"], tuple(sorted(message))) for message in messages)
        options = tuple(sorted((name, repr(value)) for name, value in conversation.options.items()))
        key = (number, part, shape, bool(conversation.tools), options)
        if key not in self.asked:
            if len(self.asked) >= _MOST_ASKED:
                self.asked.clear()
            self.asked[key] = self._shows_mark(conversation, messages, number, part)
        return self.asked[key]

    def _shows_mark(
        self, conversation: Conversation, messages: Sequence[dict[str, Any]], number: int, part: str
    ) -> bool:
        mark = next(unseen_marks("".join(strings_of(messages))))
        marked = [*messages]
        marked[number] = _with_mark(messages[number], part, mark)
        asked = replace(conversation, messages=tuple(marked))
        try:
            return mark in self._text(asked, spoken(asked, self.dialect))
        except DataError:  # it takes no such value here; what it wrote of the true one is known
            return True

    def prompt(self, conversation: Conversation, said: Messages) -> str:
        """What a server gives to the model after these messages: their text with the generation prompt."""
        return self.tokenizer.render(
            said, add_generation_prompt=True, tools=conversation.tools, options=conversation.options
        )

    def _text(self, conversation: Conversation, said: Messages) -> str:
        return self.tokenizer.render(said, tools=conversation.tools, options=conversation.options)

    def _placed(self, text: str, turns: Sequence[Turn], notes: tuple[str, ...]) -> tuple[RenderedRow, ...]:
        """Each turn in the whole text where it fits, else in a row of its own."""
        ends = [turn.end_in(text) for turn in turns]
        inside = [(turn, end) for turn, end in zip(turns, ends, strict=True) if end is not None]
        apart = [turn for turn, end in zip(turns, ends, strict=True) if end is None and self.train_on != "all"]
        rows = [_own_row(turn, (*notes, APART)) for turn in apart]
        if inside or not apart:
            rows.append(self._whole_row(text, inside, notes))
        return tuple(rows)

    def _whole_row(self, text: str, inside: Sequence[tuple[Turn, int]], notes: tuple[str, ...]) -> RenderedRow:
        spans = tuple((turn.start, end) for turn, end in inside)
        last = inside[-1][0] if inside else None
        needs_end = last is not None and last.text == text and not last.ends
        answer = (last.start, last.stop) if last is not None else (len(text), len(text))
        if self.train_on == "all":
            spans = ((0, len(text)),)
        return RenderedRow(text, spans, has_specials=True, ends_turn=needs_end, answer=answer, notes=notes)


Guard = Callable[[Render], Render]
"""What is put around a function that renders a value of texts, so that control tokens in these stay text."""


def rendering_of(chat: Chat, guard: Guard) -> Callable[[Conversation], Rendered]:
    """The rows of a conversation, under a guard: it sees the texts as they are read, JSON in them parsed."""

    def rows_of(texts: Mapping[str, Any]) -> Rendered:
        messages, tools, options = tuple(texts["messages"]), tuple(texts["tools"]), texts["options"]
        return chat.rows_of(replace(texts["whole"], messages=messages, tools=tools, options=options))

    guarded = guard(rows_of)
    return lambda whole: guarded(
        {"messages": whole.messages, "tools": whole.tools, "options": dict(whole.options), "whole": whole}
    )


def chat_render(chat: Chat, guard: Guard) -> Render:
    """The function that renders a record's conversation, as one row and further ones for answers that need their own.

    Its control tokens are treated by `guard`.
    """
    rows_of = rendering_of(chat, guard)

    def render(record: Mapping[str, Any]) -> Rendered:
        conversation = conversation_of(record)
        return conversation if isinstance(conversation, Refusal) else rows_of(conversation)

    return render


def _own_row(turn: Turn, notes: tuple[str, ...]) -> RenderedRow:
    end = turn.ends[-1] if turn.ends else len(turn.text)
    span, answer = (turn.start, end), (turn.start, turn.stop)
    return RenderedRow(turn.text[:end], (span,), has_specials=True, ends_turn=not turn.ends, answer=answer, notes=notes)


def chat_of(tokenizer: TextTokenizer, train_on: TrainOn) -> Chat:
    """How a tokenizer's chat template renders conversations."""
    chat = Chat(tokenizer, dialect_of(tokenizer), endings_of(tokenizer), train_on)
    return replace(chat, template_notes=(*tokenizer.template_notes, *_disagreement(chat)))


def _disagreement(chat: Chat) -> Iterator[str]:
    """A note where the template's own {% generation %} tags mark other text of an answer than is trained."""
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    whole = Conversation(tuple(said), (False, True))
    marked = chat.tokenizer.marked_answers(spoken(whole, chat.dialect))
    rows = chat.rows_of(whole)
    if marked is None or isinstance(rows, Refusal):
        return
    [row] = rows
    trained = "".join(row.text[start:stop] for start, stop in row.spans)
    theirs = "".join(row.text[start:stop] for start, stop in marked)
    if theirs != trained:
        yield f"the template's own {{% generation %}} tags mark {theirs!r} of an answer where {trained!r} is trained"


def _answers_of(conversation: Conversation) -> list[int]:
    """Numbers of the assistant's messages."""
    return [number for number, message in enumerate(conversation.messages) if message["role"] == "assistant"]


def _with_mark(message: dict[str, Any], part: str, mark: str) -> dict[str, Any]:
    """A message with a mark in the place of a part: its content, its reasoning, or the names in its tool calls."""
    if part == "tool calls":
        return {**message, "tool_calls": [_renamed(call, mark) for call in message["tool_calls"]]}
    return {**message, "content" if part == "content" else REASONING_FIELDS[0]: mark}


def _renamed(call: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """A tool call with a mark in the place of its function's name, also in its id: Kimi's ids name the function."""
    name = call["function"]["name"]
    identity = {"id": str(call["id"]).replace(name, mark)} if name and "id" in call else {}
    return {**call, **identity, "function": {**call["function"], "name": mark}}


def _without(spans: Sequence[tuple[int, int]], hole: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """The spans without what lies in the hole."""
    first, last = hole
    parts = [part for start, stop in spans for part in ((start, min(stop, first)), (max(start, last), stop))]
    return tuple((start, stop) for start, stop in parts if start < stop)


def _is_empty(message: Mapping[str, Any]) -> bool:
    """Whether the assistant says nothing. The template may write a header or an empty thought all the same."""
    return not (message["content"].strip() or message.get(REASONING_FIELDS[0]) or message.get("tool_calls"))


_ALWAYS_READ = frozenset({"role", "content", "tool_calls", *REASONING_FIELDS})


def _unread_fields(conversation: Conversation, tokenizer: TextTokenizer) -> Iterator[str]:
    """A note for each field of the messages that the template's text does not name."""
    names = {name for message in conversation.messages for name in message} - _ALWAYS_READ
    for name in sorted(names):
        if not tokenizer.template_names(name):
            yield f"field {name!r} of messages is read by nothing"
