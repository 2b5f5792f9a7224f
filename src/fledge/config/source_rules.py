"""Options of one source that are valid each and cannot work together, or have no effect."""

import glob
from collections.abc import Iterator

from fledge.config.columns import (
    ANSWERS,
    OLD_KEYS,
    REQUIRED,
    ROLES,
    column_of,
    columns_in,
    delimiter_of,
    further_columns,
    is_named,
    parse_template,
)
from fledge.config.data import SourceConfig
from fledge.config.nearest import nearest_name
from fledge.config.paths import DATA_SUFFIXES
from fledge.errors import Problem

Names = tuple[str, ...]
Fault = tuple[str, tuple[Names, ...], str]
"""What is wrong, the keys involved below the source (the one to change first), and the cure."""

# Options of a source that only some formats read.
_ONLY_FOR = {
    "prompt": ("completion",),
    "completion": ("completion",),
    "prompt_prefix": ("completion",),
    "prompt_template": ("completion", "chat"),
    "system_prompt": ("chat", "alpaca"),
    "text_column": ("text",),
}
_TABLES = (".csv", ".tsv")


def source_faults(source: SourceConfig) -> Iterator[Fault]:
    """Everything that is wrong between the options of one source."""
    for name, formats in _ONLY_FOR.items():
        if source.format not in formats and getattr(source, name) != SourceConfig.model_fields[name].default:
            cure = f"remove it, or write format: {formats[0]}"
            yield f"has no effect on format {source.format}", ((name,), ("format",)), cure
    yield from _of_columns(source)
    if source.format == "chat":
        yield from _of_chat_columns(source)
    if source.prompt_template is not None and source.format in _ONLY_FOR["prompt_template"]:
        yield from _of_template(source, source.prompt_template)
    yield from _of_path(source)


def _of_columns(source: SourceConfig) -> Iterator[Fault]:
    roles = ROLES[source.format]
    yield from _of_several(source)
    for role in source.columns:
        if role not in roles:
            near = nearest_name(role, roles)
            cure = f"did you mean {near}?" if near else f"there is: {', '.join(roles)}"
            yield f"format {source.format} has no role {role!r}", (("columns", role), ("format",)), cure
        elif role in OLD_KEYS and getattr(source, OLD_KEYS[role]) not in (
            SourceConfig.model_fields[OLD_KEYS[role]].default,
            source.columns[role],
        ):
            what = f"{role} is named twice, here and by {OLD_KEYS[role]}"
            yield what, (("columns", role), (OLD_KEYS[role],)), "keep one of the two"
    taken: dict[str, str] = {}
    for role in (role for role in roles if is_named(source, role) or role in REQUIRED[source.format]):
        if role == "prompt" and source.prompt_template is not None:
            continue
        column = column_of(source, role)
        if column in taken:
            what = f"{taken[column]} and {role} are the same column, {column}"
            yield what, (_key_of(source, role), _key_of(source, taken[column])), "name the column that holds the answer"
        taken.setdefault(column, role)


def _of_several(source: SourceConfig) -> Iterator[Fault]:
    """Faults of lists of columns: only the answer may have one, and no column twice."""
    answer = ANSWERS.get(source.format)
    for role, value in source.columns.items():
        if role in ROLES[source.format] and role != answer and not isinstance(value, str):
            cure = "name one column" if answer is None else f"name one column; the answer, {answer}, can have several"
            yield f"{role} is read from one column", (("columns", role),), cure
    if answer is None:
        return
    others = {column_of(source, role) for role in ROLES[source.format] if role != answer and is_named(source, role)}
    seen = {column_of(source, answer)}
    for column in further_columns(source):
        if column in seen or column in others:
            what = f"the column {column} is named twice"
            yield what, (_key_of(source, answer),), "name each column once"
        seen.add(column)


def _key_of(source: SourceConfig, role: str) -> Names:
    return (OLD_KEYS[role],) if role in OLD_KEYS and role not in source.columns else ("columns", role)


def _of_chat_columns(source: SourceConfig) -> Iterator[Fault]:
    names = source.columns
    if "messages" in names and {"user", "assistant"} & set(names):
        cure = "keep messages, or user and assistant"
        yield "a conversation is a column of messages or two columns, not both", (("columns", "messages"),), cure
    if "user" in names and "assistant" not in names:
        cure = "add assistant: the column that holds the answer"
        yield "user needs assistant beside it", (("columns", "user"), ("columns",)), cure
    if "assistant" in names and "user" not in names and source.prompt_template is None:
        cure = "add user: the column that holds the question; or a prompt_template"
        yield "assistant needs user beside it", (("columns", "assistant"), ("columns",)), cure


def _of_template(source: SourceConfig, text: str) -> Iterator[Fault]:
    key = ("prompt_template",)
    asks, answers = ("user", "assistant") if source.format == "chat" else ("prompt", "completion")
    parts = parse_template(text)
    if isinstance(parts, Problem):
        yield parts.what, (key,), parts.cure
    elif not (columns := columns_in(parts)):
        yield "names no column, so every prompt would be the same", (key,), "write {column} where its text goes"
    elif source.format != "chat" or answers in source.columns:
        for column in sorted({column_of(source, answers), *further_columns(source)} & set(columns)):
            what = f"puts the answer's own column, {column}, into the prompt"
            yield what, (key, _key_of(source, answers)), f"leave {{{column}}} out"
    if source.prompt_prefix:
        yield "does not go together with prompt_prefix", (key, ("prompt_prefix",)), "write the prefix into it"
    if is_named(source, asks):
        what = f"makes the prompt, so the column of {asks} is not read"
        yield what, (key, _key_of(source, asks)), f"keep one of the two; {{{column_of(source, asks)}}} is its place"
    if source.format == "chat" and "assistant" not in source.columns:
        cure = "add columns: {assistant: ...}, the column that holds the answer"
        yield "needs the column of the answer", (key, ("columns",)), cure


def _of_path(source: SourceConfig) -> Iterator[Fault]:
    is_local = source.path.startswith("/")
    is_file = is_local and (_suffix(source.path) != "" or glob.has_magic(source.path))
    if is_file and source.split != "train":
        cure = "remove it: a local path has no splits, name the file"
        yield "has no effect on a local path", (("split",), ("path",)), cure
    if is_file and source.subset is not None:
        yield "has no effect on a local path", (("subset",), ("path",)), "remove it: name the files"
    if is_local and source.revision is not None:
        yield "has no effect on a local path", (("revision",), ("path",)), "remove it"
    delimiter = delimiter_of(source)
    if delimiter is None:
        return
    if len(delimiter) != 1 or delimiter in '"\r\n' or delimiter.isalnum():
        yield "is not one character that can stand between values", (("delimiter",),), 'write ",", ";" or "\\t"'
    elif not is_local:
        yield "has no effect on a hub data set", (("delimiter",), ("path",)), "remove it"
    elif _suffix(source.path) and not source.path.lower().removesuffix(".gz").endswith(_TABLES):
        yield f"has no effect on {_suffix(source.path)}", (("delimiter",), ("path",)), "remove it"


def _suffix(path: str) -> str:
    """What a path ends with, where that is what a data file ends with."""
    name = path.lower().removesuffix(".gz")
    return next((suffix for suffix in DATA_SUFFIXES if name.endswith(suffix)), "")
