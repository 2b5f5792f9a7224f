"""The chat format: a conversation as the model's own template writes it, its answers trained as serving writes them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fledge.config.data import TrainOn
from fledge.data.formats.control import Rendered, unseen_marks
from fledge.data.formats.dialect import Dialect, Messages, dialect_of, spoken
from fledge.data.formats.messages import REASONING_FIELDS, Conversation, conversation_of
from fledge.data.formats.refused import prompt_cure, role_cure
from fledge.data.formats.tools import words_of
from fledge.data.formats.turns import Difference, Endings, Turn, endings_of, has_words, turn_of
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

APART = "an earlier answer that the chat template writes otherwise once more follows is trained as a row of its own"
NO_TOOLS = "the chat template does not show the row's tools to the model"
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

    def render(self, record: Mapping[str, Any]) -> Rendered:
        """A record's conversation as one row, and further rows for answers that cannot be trained in it."""
        conversation = conversation_of(record)
        return conversation if isinstance(conversation, Refusal) else self.rows_of(conversation)

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
        turns = []
        for number in self._trained(conversation):
            turn = self._turn(conversation, said, number)
            if isinstance(turn, Refusal):
                return turn
            turns.append(turn)
        if any(_is_empty(conversation.messages[turn.message]) for turn in turns):
            return Refusal("empty_completion", "an assistant turn is empty", text=text)
        left_out = _left_out(conversation, said, text, self)
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
        return tuple(replace(row, system=system) for row in self._placed(text, turns, notes))

    def _trained(self, conversation: Conversation) -> list[int]:
        """Numbers of the messages that are trained."""
        numbers = [number for number, trains in enumerate(conversation.trains) if trains]
        return numbers[-1:] if self.train_on == "last" else numbers

    def _turn(self, conversation: Conversation, said: Messages, number: int) -> Turn | Refusal:
        prompt = self.prompt(conversation, said[:number])
        text = self._text(conversation, said[: number + 1])
        turn = turn_of(number, prompt=prompt, text=text, endings=self.endings)
        if isinstance(turn, Difference):
            what = f"message {number + 1}: the generation prompt is no beginning of the text with the answer: {turn}"
            messages = conversation.messages[: number + 1]
            cure = prompt_cure(messages, turn, said=said[: number + 1], tokenizer=self.tokenizer)
            return Refusal("invalid", what, cure)
        return _checked(conversation.messages[number], turn)

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
    marked = chat.tokenizer.marked_answers(said)
    rows = chat.rows_of(Conversation(tuple(said), (False, True)))
    if marked is None or isinstance(rows, Refusal):
        return
    [row] = rows
    trained = "".join(row.text[start:stop] for start, stop in row.spans)
    theirs = "".join(row.text[start:stop] for start, stop in marked)
    if theirs != trained:
        yield f"the template's own {{% generation %}} tags mark {theirs!r} of an answer where {trained!r} is trained"


def _checked(message: Mapping[str, Any], turn: Turn) -> Turn | Refusal:
    """The turn, where the template writes all that the message says; a refusal where it leaves something out."""
    written = turn.text[turn.start :]
    parts = {"content": [part for part in _THINK.split(message["content"]) if part.strip()]}
    parts["reasoning"] = [message[REASONING_FIELDS[0]]] if REASONING_FIELDS[0] in message else []
    parts["tool calls"] = words_of(message.get("tool_calls", []))
    for name, words in parts.items():
        if not all(has_words(part, written) for part in words):
            what = f"message {turn.message + 1}: the chat template leaves out or changes its {name}"
            return Refusal("invalid", what, _TEMPLATE_CURE)
    return turn


def _is_empty(message: Mapping[str, Any]) -> bool:
    """Whether the assistant says nothing. The template may write a header or an empty thought all the same."""
    return not (message["content"].strip() or message.get(REASONING_FIELDS[0]) or message.get("tool_calls"))


def _left_out(conversation: Conversation, said: Messages, text: str, chat: Chat) -> list[str]:
    """Roles of the messages before the last answer that the template does not write at all."""
    roles = set()
    for number, message in enumerate(conversation.messages):
        content = message["content"].strip()
        if message["role"] == "assistant" or not content or has_words(content, text):
            continue
        mark = next(unseen_marks(text))
        probe = [*said]
        marked = [{"type": "text", "text": mark}] if chat.dialect.has_parts else mark
        probe[number] = {**said[number], "content": marked}
        if mark not in chat.tokenizer.render(probe, tools=conversation.tools, options=conversation.options):
            roles.add(message["role"])
    return sorted(roles)


_ALWAYS_READ = frozenset({"role", "content", "tool_calls", *REASONING_FIELDS})


def _unread_fields(conversation: Conversation, tokenizer: TextTokenizer) -> Iterator[str]:
    """A note for each field of the messages that the template's text does not name."""
    names = {name for message in conversation.messages for name in message} - _ALWAYS_READ
    for name in sorted(names):
        if not tokenizer.template_names(name):
            yield f"field {name!r} of messages is read by nothing"
