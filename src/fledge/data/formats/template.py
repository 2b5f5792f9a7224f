"""A prompt made of several columns: text with places, each filled once."""

from collections.abc import Mapping
from typing import Any

from fledge.config.columns import Part, columns_in, parse_template
from fledge.config.data import SourceConfig
from fledge.config.nearest import nearest_name
from fledge.data.formats.columns import text_of
from fledge.data.formats.empty import plain
from fledge.data.formats.guess import present_names
from fledge.data.rows import Refusal
from fledge.errors import DataError, Problem


def parts_of(source: SourceConfig) -> tuple[Part, ...]:
    """The pieces of the source's prompt template. Raises DataError where it is none."""
    parts = parse_template(source.prompt_template or "")
    if isinstance(parts, Problem):
        raise DataError(parts.what, where=f"{source.path} (prompt_template)", cure=parts.cure)
    return parts


def fill(parts: tuple[Part, ...], record: Mapping[str, Any]) -> tuple[str, bool] | Refusal:
    """The prompt that a row's columns make, and whether any of them holds something.

    What is filled in is text to the letter: braces in it are no places.
    """
    pieces, is_filled = [], False
    for before, column in parts:
        pieces.append(before)
        if column is None:
            continue
        if column not in record:
            near = nearest_name(column, [str(name) for name in record])
            cure = f"write {{{near}}} in prompt_template" if near else "name one of those in prompt_template"
            what = f"no column {column!r}, which prompt_template names; present: {present_names(record)}"
            return Refusal("invalid", what, cure)
        value = text_of({column: plain(record[column])}, column)
        if isinstance(value, Refusal):
            return value
        pieces.append(value)
        is_filled = is_filled or not (not value or value.isspace())
    return "".join(pieces), is_filled


def prompt_of(source: SourceConfig, text: str) -> str:
    """The prompt that a person's text becomes, as the rows of a completion source have become theirs.

    Raises DataError where the prompt is made of several columns: one text cannot be all of them.
    """
    if source.prompt_template is None:
        return source.prompt_prefix + text
    parts = parts_of(source)
    columns = columns_in(parts)
    if len(columns) > 1:
        what = f"the run's prompts are made of {len(columns)} columns: {', '.join(columns)}"
        raise DataError(what, where="prompt_template", cure="write the whole prompt and send it with --raw")
    return "".join(before + (text if column is not None else "") for before, column in parts)
