"""Control tokens in a row's own text: found, kept as text, and told."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from fledge.data.rows import Refusal, RenderedRow
from fledge.data.tokenize import Text, TextTokenizer

Rendered = tuple[RenderedRow, ...] | Refusal
Render = Callable[[Mapping[str, Any]], Rendered]
KEPT_AS_TEXT = "a control token is written in the row's own text, and is kept as text (data.sanitize_control_tokens)"
BECOMES_TOKEN = "a control token is written in the row's own text, and becomes that token"
_RARE = (range(0xA000, 0xA48D), range(0x1400, 0x1680), range(0xE000, 0xF900), range(0x100000, 0x10FFFE))
"""Yi syllables and Canadian syllabics first: a template that writes a value in Python's spelling leaves them as they
are, where it would write private characters as escapes.
"""


@dataclass(frozen=True, slots=True)
class Control:
    """A tokenizer's control tokens, made quick to look for."""

    pattern: re.Pattern[str]
    starts: frozenset[str]
    """The first two characters of each: a text that holds none of these holds no token."""

    def occurs_in(self, text: str) -> bool:
        """Whether the text spells a control token."""
        return any(start in text for start in self.starts) and self.pattern.search(text) is not None


def control_of(tokenizer: TextTokenizer, added: Sequence[str] = ()) -> Control:
    """The control tokens of a tokenizer: those that people's text must not become.

    Tokens that the recipe has `added` are none where the chat template does not write them: they are for the rows.
    """
    theirs = set(added) - tokenizer.template_tokens
    tokens = sorted(tokenizer.control_tokens - theirs, key=len, reverse=True)
    return Control(any_of(tokens), frozenset(token[:2] for token in tokens))


def any_of(tokens: list[str]) -> re.Pattern[str]:
    """A pattern of any of the texts; of none it matches nothing."""
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")


@dataclass(frozen=True, slots=True)
class Marking:
    """Marks in the place of the first characters of control tokens, so that these are found again in a rendered text.

    A mark is as long as what it stands for, so places in a text stay the same.
    """

    control: Control
    mark_of: Mapping[str, str]

    def mark(self, value: Any) -> Any:
        """The value with every control token in its texts marked; keys are left as they are."""
        if isinstance(value, str):
            return self.control.pattern.sub(lambda match: self.mark_of[match[0][0]] + match[0][1:], value)
        if isinstance(value, Mapping):
            return {key: self.mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item) for item in value]
        return value

    def unmark(self, text: str) -> Text:
        """The text as it was, and where in it control tokens begin that must stay text."""
        original = str.maketrans({mark: character for character, mark in self.mark_of.items()})
        literals = tuple(place for place, character in enumerate(text) if ord(character) in original)
        return Text(text.translate(original), literals)


def unseen_marks(text: str) -> Iterator[str]:
    """Rare characters that `text` does not hold."""
    seen = set(text)
    return (mark for mark in map(chr, chain(*_RARE)) if mark not in seen)


def marking_of(value: Any, control: Control) -> Marking | None:
    """Marks for the control tokens that the texts of `value` spell; None where they spell none."""
    texts = list(strings_of(value))
    if not any(control.occurs_in(text) for text in texts):
        return None
    marks = unseen_marks("".join(texts))
    found = {match[0][0] for text in texts for match in control.pattern.finditer(text)}
    return Marking(control, {character: next(marks) for character in sorted(found)})


def text_of_people(value: Any, render: Callable[[Any], str], *, control: Control) -> Text:
    """The text that `render` makes of a person's words, in which no control token of theirs becomes a token."""
    marking = marking_of(value, control)
    return Text(render(value)) if marking is None else marking.unmark(render(marking.mark(value)))


def keep_as_text(render: Render, control: Control, *, is_all_theirs: bool = False) -> Render:
    """`render`, but control tokens in a record's own text stay text.

    The first character of each is changed into a mark before the record is rendered, and back after it. So whatever a
    format or a template does with the text, it is known which control tokens of the result are the row's. With
    `is_all_theirs` the recipe itself writes none, so that a token which two texts of a row make together is theirs too;
    a chat template's are its own all the same.
    """
    return partial(_kept_as_text, render, control, is_all_theirs=is_all_theirs)


def _kept_as_text(render: Render, control: Control, record: Mapping[str, Any], *, is_all_theirs: bool) -> Rendered:
    rows = _marked_render(render, control, record)
    if isinstance(rows, Refusal) or not is_all_theirs:
        return rows
    return tuple(row if row.has_specials else _all_literal(row, control) for row in rows)


def _all_literal(row: RenderedRow, control: Control) -> RenderedRow:
    """The row with every control token of its text as text."""
    if not control.occurs_in(row.text):
        return row
    return _with_literals(row, [found.start() for found in control.pattern.finditer(row.text)])


def _with_literals(row: RenderedRow, places: Sequence[int]) -> RenderedRow:
    literals = tuple(sorted({*row.literals, *places}))
    notes = row.notes if KEPT_AS_TEXT in row.notes or not literals else (*row.notes, KEPT_AS_TEXT)
    return replace(row, literals=literals, notes=notes)


def _marked_render(render: Render, control: Control, record: Mapping[str, Any]) -> Rendered:
    marking = marking_of(record, control)
    if marking is None:
        return render(record)
    rows = render(marking.mark(record))
    if isinstance(rows, Refusal):
        what, cure, text = (marking.unmark(part).text for part in (rows.what, rows.cure, rows.text))
        return replace(rows, what=what, cure=cure, text=text)
    return tuple(_unmarked(row, marking) for row in rows)


def _unmarked(row: RenderedRow, marking: Marking) -> RenderedRow:
    found = marking.unmark(row.text)
    system = row.system and marking.unmark(row.system).text
    references = tuple(marking.unmark(text).text for text in row.references)
    plain = replace(row, text=found.text, system=system, references=references)
    return _with_literals(plain, found.literals) if found.literals else plain


def note_tokens(render: Render, control: Control) -> Render:
    """`render`, but it is noted where a record's own text spells a control token."""
    return partial(_noted, render, control)


def _noted(render: Render, control: Control, record: Mapping[str, Any]) -> Rendered:
    rows = render(record)
    if isinstance(rows, Refusal) or not any(control.occurs_in(text) for text in strings_of(record)):
        return rows
    return tuple(replace(row, notes=(*row.notes, BECOMES_TOKEN)) for row in rows)


def strings_of(value: Any) -> Iterator[str]:
    """Every text in a value of JSON's kinds, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_of(item)
