"""The columns of each format, taken from a row under the names that a recipe gives them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fledge.config.columns import REQUIRED, columns_in, columns_of, further_columns
from fledge.config.data import Format, SourceConfig
from fledge.data.formats.columns import text_of
from fledge.data.formats.empty import plain
from fledge.data.formats.guess import missing_roles
from fledge.data.formats.messages import are_messages
from fledge.data.formats.template import fill, parts_of
from fledge.data.kinds import kind_of
from fledge.data.literals import literal_of
from fledge.data.rows import TEXT_COLUMN, Refusal, is_text_file


@dataclass(frozen=True, slots=True)
class Named:
    """A record with its format's names, and the columns that were read for it."""

    record: dict[str, Any]
    read: frozenset[str]
    references: tuple[str, ...] = ()
    """Right answers beside the one in the record."""
    answer: str = ""
    """The one in the record, where there are others."""


Name = Callable[[Mapping[str, Any]], Named | Refusal]
_Ask = Callable[[Mapping[str, Any]], Any]
_Columns = Mapping[str, str]

_CONVERSATIONS = "conversations"
"""The other name of the column of messages, where the recipe names none."""
_OTHERS_OF_CHAT = ("functions", "chat_template_kwargs")
_SYSTEM_ROLES = ("system", "developer")


def naming_of(source: SourceConfig, *, needs_prompt: bool) -> Name:
    """The function that takes the columns of the source's format from a row, or says which one is missing or no text.

    `needs_prompt` gives a prompt template no text where its columns are all empty.
    """
    columns, further = columns_of(source), further_columns(source)
    if source.format == "alpaca":
        return partial(_alpaca, source, columns, further)
    if source.format == "completion":
        asking = _asking(source, columns, role="prompt", needs_prompt=needs_prompt)
        return partial(_completion, *asking, columns, further)
    if source.format == "text":
        return partial(_text, columns)
    if "assistant" in columns:
        return partial(_pair, source, *_asking(source, columns, role="user", needs_prompt=True), columns, further)
    return partial(_chat, source, columns)


def _asking(source: SourceConfig, columns: _Columns, *, role: str, needs_prompt: bool) -> tuple[_Ask, list[str]]:
    """What makes a row's prompt, and the columns that it is made of."""
    if source.prompt_template is None:
        return lambda record: plain(record[columns[role]]), [columns[role]]
    parts = parts_of(source)

    def ask(record: Mapping[str, Any]) -> str | Refusal:
        filled = fill(parts, record)
        if isinstance(filled, Refusal):
            return filled
        return filled[0] if filled[1] or not needs_prompt else ""

    return ask, columns_in(parts)


def _lacking(record: Mapping[str, Any], columns: _Columns, form: Format, *roles: str) -> Refusal | None:
    """What is said where the column of a role that a row must have is not there."""
    needed = [columns[role] for role in (roles or REQUIRED[form]) if role in columns]
    is_there = not is_text_file(record) and all(column in record for column in needed)
    return None if is_there else missing_roles(record, columns, form=form)


def _text_in(record: Mapping[str, Any], column: str) -> str | Refusal:
    value = record[column]
    if isinstance(value, str) and value.isascii():
        return value
    return text_of({column: plain(value)}, column)


def _texts(record: Mapping[str, Any], columns: _Columns) -> dict[str, str] | Refusal:
    """The text of each role whose column the row has; null and NaN are the empty text."""
    found: dict[str, str] = {}
    for role, column in columns.items():
        if column in record:
            value = _text_in(record, column)
            if isinstance(value, Refusal):
                return value
            found[role] = value
    return found


def _answers(record: Mapping[str, Any], column: str, further: Sequence[str]) -> list[str] | Refusal:
    """The right answers of a row, at least one: of each column a text, or a list of texts. What is empty is left out,
    unless all are.
    """
    texts = []
    for name in (column, *(name for name in further if name in record)):
        for one in _texts_of(record[name]):
            text = _text_in({name: one}, name)
            if isinstance(text, Refusal):
                return text
            texts.append(text)
    return [text for text in texts if text.strip()] or texts[:1]


def _texts_of(value: Any) -> Sequence[Any]:
    """Several answers as one value: a list of texts, or SQuAD's object with such a list; one alone as a list of one."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list | tuple):
        value = value["text"]
    if not isinstance(value, list | tuple):
        return (value,)
    return value or ("",)


def _present_answer(
    role: str, columns: _Columns, further: Sequence[str], record: Mapping[str, Any]
) -> tuple[_Columns, Sequence[str]]:
    """The columns with the first of the answer's that the row has, and those after it."""
    names = [columns[role], *further]
    place = next((place for place, name in enumerate(names) if name in record), 0)
    return {**columns, role: names[place]}, names[place + 1 :]


def _alpaca(
    source: SourceConfig, columns: _Columns, further: Sequence[str], record: Mapping[str, Any]
) -> Named | Refusal:
    columns, further = _present_answer("output", columns, further, record)
    if refusal := _lacking(record, columns, "alpaca"):
        return refusal
    texts = _texts(record, {role: column for role, column in columns.items() if role not in ("history", "output")})
    if isinstance(texts, Refusal):
        return texts
    answers = _answers(record, columns["output"], further)
    if isinstance(answers, Refusal):
        return answers
    column = columns.get("history", "")
    history = _history(record.get(column), column)
    if isinstance(history, Refusal):
        return history
    system = texts.get("system", "")
    beside = {"system": system if system.strip() else source.system_prompt or "", "history": history}
    whole = {**texts, **beside, "output": answers[0]}
    return Named(whole, frozenset({*columns.values(), *further}), tuple(answers[1:]), answers[0])


def _history(value: Any, column: str) -> list[tuple[str, str]] | Refusal:
    """Earlier turns as pairs of instruction and response."""
    turns = _listed(value)
    cure = 'write a list of pairs: [["instruction", "response"], ...]'
    if not isinstance(turns, list | tuple):
        return Refusal("invalid", f"column {column!r} holds {kind_of(value)}, not a list of earlier turns", cure)
    pairs = []
    for number, turn in enumerate(turns, 1):
        both = turn if isinstance(turn, list | tuple) and len(turn) == 2 else (None, None)
        first, second = (text_of({column: part}, column) for part in both)
        if not isinstance(first, str) or not isinstance(second, str):
            return Refusal("invalid", f"turn {number} in column {column!r} is no pair of texts", cure)
        pairs.append((first, second))
    return pairs


def _listed(value: Any) -> Any:
    """A list, or the list that a table's text holds as JSON or as a Python literal; nothing at all is an empty list."""
    value = plain(value)
    if not isinstance(value, str):
        return value
    if not value.strip():
        return []
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = literal_of(value)
    return found if isinstance(found, list) else value


def _completion(
    ask: _Ask, of: list[str], columns: _Columns, further: Sequence[str], record: Mapping[str, Any]
) -> Named | Refusal:
    columns, further = _present_answer("completion", columns, further, record)
    if refusal := _lacking(record, columns, "completion"):
        return refusal
    prompt, completion = ask(record), plain(record[columns["completion"]])
    if isinstance(prompt, Refusal):
        return prompt
    asked = _checked_prompt(prompt, columns.get("prompt", ""))
    if isinstance(asked, Refusal):
        return asked
    answers: list[str] = []
    if not are_messages(completion):
        found = _answers(record, columns["completion"], further)
        if isinstance(found, Refusal):
            return found
        answers, completion = found, found[0]
    elif further:
        what = f"column {columns['completion']!r} holds messages, and several right answers are texts"
        return Refusal("invalid", what, "name one column of messages as the completion")
    has_messages = any(isinstance(value, list | tuple) and value for value in (prompt, completion))
    beside = [name for name in ("system", "tools", *_OTHERS_OF_CHAT) if has_messages and name in record]
    texts = {"prompt": prompt, "completion": completion} | {name: plain(record[name]) for name in beside}
    read = frozenset({*of, *columns.values(), *further, *beside})
    return Named(texts, read, tuple(answers[1:]), answers[0] if answers else "")


def _checked_prompt(prompt: Any, column: str) -> Any:
    """The prompt where it is a text, or a list of messages, which is the renderer's."""
    if isinstance(prompt, list | tuple) and any(isinstance(item, str) for item in prompt):
        what = f"column {column!r} holds a list of {len(prompt)} texts, and a row has one prompt"
        return Refusal("invalid", what, "keep one of them, as text; or give each a row of its own")
    return prompt if are_messages(prompt) or prompt in ([], ()) else text_of({column: prompt}, column)


def _text(columns: _Columns, record: Mapping[str, Any]) -> Named | Refusal:
    if is_text_file(record):
        return Named({TEXT_COLUMN: record[TEXT_COLUMN]}, frozenset({TEXT_COLUMN}))
    if refusal := _lacking(record, columns, "text"):
        return refusal
    text = _text_in(record, columns["text"])
    return text if isinstance(text, Refusal) else Named({"text": text}, frozenset(columns.values()))


def _chat(source: SourceConfig, columns: _Columns, record: Mapping[str, Any]) -> Named | Refusal:
    names = [columns.get("messages", _CONVERSATIONS)]
    if names == ["messages"] and _CONVERSATIONS not in columns.values():
        names.append(_CONVERSATIONS)
    present = [name for name in names if name in record]
    if not present:
        return missing_roles(record, columns, form="chat")
    column = next((name for name in present if plain(record[name]) not in ("", [], ())), present[0])
    messages = _listed(record[column])
    if not isinstance(messages, list | tuple):
        what = f"column {column!r} holds {kind_of(messages)}, not a list of messages"
        return Refusal("invalid", what, 'write the messages as JSON: [{"role": ..., "content": ...}, ...]')
    return _with_beside(source, columns, record, messages=list(messages), of=present)


def _pair(
    source: SourceConfig,
    ask: _Ask,
    of: list[str],
    columns: _Columns,
    further: Sequence[str],
    record: Mapping[str, Any],
) -> Named | Refusal:
    """A conversation of one question and one answer, each a column of its own."""
    columns, further = _present_answer("assistant", columns, further, record)
    if refusal := _lacking(record, columns, "chat", "user", "assistant"):
        return refusal
    asked = ask(record)
    user = asked if source.prompt_template is not None or isinstance(asked, Refusal) else text_of({of[0]: asked}, of[0])
    answers = _answers(record, columns["assistant"], further)
    if isinstance(user, Refusal):
        return user
    if isinstance(answers, Refusal):
        return answers
    assistant, *others = answers
    if not user.strip() and not assistant.strip():
        return Refusal("empty", "the row is empty")
    if not user.strip():
        return Refusal("empty_prompt", "there is no question", text=assistant)
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    named = _with_beside(source, columns, record, messages=messages, of=[*of, columns["assistant"], *further])
    return named if isinstance(named, Refusal) else replace(named, references=tuple(others), answer=assistant)


def _with_beside(
    source: SourceConfig, columns: _Columns, record: Mapping[str, Any], *, messages: list[Any], of: list[str]
) -> Named | Refusal:
    """The messages with what a conversation has beside them: a system text, tools, and what its template asks for."""
    texts = _texts(record, {role: column for role, column in columns.items() if role == "system"})
    if isinstance(texts, Refusal):
        return texts
    found: dict[str, Any] = {"messages": messages}
    system = texts.get("system", "")
    if system.strip():
        found["system"] = system
    elif source.system_prompt is not None and not any(_is_system(message) for message in messages):
        found["system"] = source.system_prompt
    others = {name: name for name in _OTHERS_OF_CHAT if name not in columns.values()}
    others |= {role: column for role, column in columns.items() if role == "tools"}
    for name, column in others.items():
        if plain(record.get(column)) not in ("", []):
            found[name] = record[column]
    beside = [column for role, column in columns.items() if role in ("system", "tools")]
    return Named(found, frozenset([*of, *beside, *others.values()]))


def _is_system(message: Any) -> bool:
    role = (message.get("role") or message.get("from")) if isinstance(message, Mapping) else None
    return isinstance(role, str) and role.lower() in _SYSTEM_ROLES
