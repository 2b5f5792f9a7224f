"""Which column of a source plays which role, and the places of a prompt template."""

import re

from fledge.config.data import Format, SourceConfig
from fledge.errors import Problem

ROLES: dict[Format, tuple[str, ...]] = {
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "chat": ("messages", "user", "assistant", "system", "tools"),
    "completion": ("prompt", "completion"),
    "text": ("text",),
}
"""The roles that a column can play, by format."""
REQUIRED: dict[Format, tuple[str, ...]] = {
    "alpaca": ("instruction", "output"),
    "chat": (),
    "completion": ("prompt", "completion"),
    "text": ("text",),
}
"""The roles without whose column a row is refused; a conversation has messages, or the pair."""
ANSWERS: dict[Format, str] = {"alpaca": "output", "chat": "assistant", "completion": "completion"}
"""The role that can have several columns, each with a right answer, by format."""
PAIR = ("user", "assistant")
OLD_KEYS = {"prompt": "prompt", "completion": "completion", "text": "text_column"}
"""Roles that have a key of their own in a source beside `columns`."""
Part = tuple[str, str | None]
"""A piece of a prompt template: text as it stands, and the column whose text follows it (None at the end)."""

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_MORE_THAN_A_NAME = re.compile(r"[.\[\]!:]")


def columns_of(source: SourceConfig) -> dict[str, str]:
    """The column of each role that `source` reads, whether the rows have it or not.

    A role that the recipe does not name has the column of its own name, unless another role has been given that column.
    A prompt template stands for the prompt's column; user and assistant are read only where they are named.
    """
    roles = [role for role in ROLES[source.format] if role != "prompt" or source.prompt_template is None]
    named = {role: column_of(source, role) for role in roles if is_named(source, role)}
    found = {role: named.get(role, role) for role in roles if role in named or role not in (*named.values(), *PAIR)}
    if set(PAIR) & set(named):
        found.pop("messages", None)
    return found


def column_of(source: SourceConfig, role: str) -> str:
    """The column that the recipe names for `role`, the first where it names several; or the role's own name."""
    return _all_of(source, role)[0]


def further_columns(source: SourceConfig) -> tuple[str, ...]:
    """The columns after the first that hold further right answers."""
    role = ANSWERS.get(source.format)
    return () if role is None else _all_of(source, role)[1:]


def named_columns(source: SourceConfig) -> list[str]:
    """The columns that `columns` names, and further right answers."""
    first = [value if isinstance(value, str) else value[0] for value in source.columns.values()]
    return [*first, *further_columns(source)]


def _all_of(source: SourceConfig, role: str) -> tuple[str, ...]:
    value = source.columns.get(role) or (getattr(source, OLD_KEYS[role]) if role in OLD_KEYS else role)
    return (value,) if isinstance(value, str) else tuple(value)


def is_named(source: SourceConfig, role: str) -> bool:
    """True where the recipe says which column plays `role`."""
    key = OLD_KEYS.get(role)
    return role in source.columns or (
        key is not None and getattr(source, key) != SourceConfig.model_fields[key].default
    )


def delimiter_of(source: SourceConfig) -> str | None:
    """The character between two values of a table, or None where it is to be found; `\\t` is a tab."""
    return "\t" if source.delimiter == "\\t" else source.delimiter


def parse_template(text: str) -> tuple[Part, ...] | Problem:
    """The pieces of a prompt template, or what is wrong with it. `{column}` is a place, `{{` and `}}` are braces."""
    parts: list[Part] = []
    before, start = "", 0
    for found in _BRACES.finditer(text):
        before += text[start : found.start()]
        start = found.end()
        written, column = found[0], found[1]
        if written in ("{{", "}}"):
            before += written[0]
        elif column is None:
            cure = "write {column} for a column's text; {{ and }} are braces"
            return Problem(f"a brace stands alone at character {found.start() + 1}", "", cure)
        elif not column or _MORE_THAN_A_NAME.search(column):
            what = f"{written} is not the name of a column" if column else "{} names no column"
            cure = "write {column}, a name without . [ ] ! and :; {{ and }} are braces"
            return Problem(what, "", cure)
        else:
            parts.append((before, column))
            before = ""
    return (*parts, (before + text[start:], None))


def columns_in(parts: tuple[Part, ...]) -> list[str]:
    """The columns that a template names, each once."""
    return list(dict.fromkeys(column for _, column in parts if column is not None))
