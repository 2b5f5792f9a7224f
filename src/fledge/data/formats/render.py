"""From a source's format to the function that renders its records."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fledge.config.data import SourceConfig
from fledge.data.formats.chat import render_chat
from fledge.data.formats.mapping import Map, mapping_of
from fledge.data.formats.plain import render_alpaca, render_completion, render_text
from fledge.data.formats.turns import SPECIAL_IN_TEXT, Specials, specials_of
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

Render = Callable[[Mapping[str, Any]], RenderedRow | Refusal]
_NO_END = "no end token stands after the answer, for the tokenizer has none: what is trained so does not learn to stop"


def renderer(source: SourceConfig, tokenizer: TextTokenizer, *, trains_all: bool) -> Render:
    """The function that turns a record of `source` into text with trained spans.

    `trains_all` trains the prompt too. An encoder-decoder needs a prompt: a row without one is refused. Raises
    DataError where chat is asked of a tokenizer whose template is missing or broken.
    """
    read = mapping_of(source, needs_prompt=tokenizer.decoder_start_id is not None)
    render = partial(_read, read, _of_format(source, tokenizer))
    if tokenizer.eos_token_id is None:
        render = partial(_endless, render)
    return partial(_all_trained, render) if trains_all else render


def _of_format(source: SourceConfig, tokenizer: TextTokenizer) -> Render:
    if source.format == "chat":
        return _of_chat(source, tokenizer)
    specials = specials_of(tokenizer)
    needs_prompt = tokenizer.decoder_start_id is not None
    if source.format == "alpaca":
        return partial(_noted, partial(render_alpaca, needs_prompt=needs_prompt), specials)
    if source.format == "completion":
        joined = partial(
            render_completion,
            prompt_column="prompt",
            completion_column="completion",
            prefix=source.prompt_prefix,
            needs_prompt=needs_prompt,
        )
        return partial(_noted, joined, specials)
    return partial(render_text, column="text", eos=tokenizer.eos_token)


def _of_chat(source: SourceConfig, tokenizer: TextTokenizer) -> Render:
    if not tokenizer.has_chat_template:
        cure = "set data.chat_template: chatml, or a Jinja file; or use another format"
        raise DataError("this base has no chat template", where=f"{source.path} (format: chat)", cure=cure)
    tokenizer.check_template()
    return partial(render_chat, tokenizer=tokenizer, specials=specials_of(tokenizer))


def _read(read: Map, render: Render, record: Mapping[str, Any]) -> RenderedRow | Refusal:
    """A row rendered from the columns that the source names, with the notes of those that nothing reads."""
    mapped = read(record)
    if isinstance(mapped, Refusal):
        return mapped
    row = render(mapped.record)
    return replace(row, notes=(*row.notes, *mapped.notes)) if isinstance(row, RenderedRow) and mapped.notes else row


def _all_trained(render: Render, record: Mapping[str, Any]) -> RenderedRow | Refusal:
    row = render(record)
    return row if isinstance(row, Refusal) else replace(row, spans=((0, len(row.text)),))


def _endless(render: Render, record: Mapping[str, Any]) -> RenderedRow | Refusal:
    row = render(record)
    return replace(row, notes=(*row.notes, _NO_END)) if isinstance(row, RenderedRow) and row.ends_turn else row


def _noted(render: Render, specials: Specials, record: Mapping[str, Any]) -> RenderedRow | Refusal:
    row = render(record)
    if isinstance(row, RenderedRow) and specials.occurs_in(row.text):
        return replace(row, notes=(*row.notes, SPECIAL_IN_TEXT))
    return row
