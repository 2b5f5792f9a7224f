"""From a source's format to the function that renders its records."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from fledge.config.data import DataConfig, SourceConfig
from fledge.data.formats.chat import Chat, Guard, chat_of, chat_render, rendering_of
from fledge.data.formats.control import Render, Rendered, control_of, keep_as_text, note_tokens
from fledge.data.formats.mapping import Map, Mapped, mapping_of
from fledge.data.formats.messages import Conversation, are_messages, messages_of, with_columns
from fledge.data.formats.plain import render_alpaca, render_completion, render_text
from fledge.data.rows import Refusal, RenderedRow
from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

_NO_END = "the tokenizer has no end token, so none is trained after the answer: the model will not learn to stop"
SEVERAL = "the row has several right answers: the first is trained, evaluation compares with all of them"
_One = Callable[[Mapping[str, Any]], RenderedRow | Refusal]
Conversed = Callable[[Conversation], Rendered]


def renderer(source: SourceConfig, tokenizer: TextTokenizer, *, data: DataConfig) -> Render:
    """The function that turns a record of `source` into rows of text with trained spans.

    An encoder-decoder needs a prompt: a row without one is refused. Raises DataError where chat is asked of a tokenizer
    whose template is missing or broken.
    """
    read = mapping_of(source, needs_prompt=tokenizer.decoder_start_id is not None)
    control = control_of(tokenizer, data.new_special_tokens)
    guard: Guard = partial(keep_as_text if data.sanitize_control_tokens else note_tokens, control=control)
    render = partial(_read, read, _of_format(source, tokenizer, data, guard))
    if tokenizer.eos_token_id is None:
        render = partial(_endless, render)
    if source.format in ("text", "chat"):
        return render
    if not data.sanitize_control_tokens:
        return guard(render)
    own = f"{source.prompt_prefix}{source.prompt_template or ''}{source.system_prompt or ''}"
    return keep_as_text(render, control, is_all_theirs=not control.occurs_in(own))


def _of_format(source: SourceConfig, tokenizer: TextTokenizer, data: DataConfig, guard: Guard) -> Render:
    if source.format == "chat":
        return chat_render(_chat(source, tokenizer, data), guard)
    needs_prompt, trains_all = tokenizer.decoder_start_id is not None, data.train_on == "all"
    if source.format == "alpaca":
        return partial(_alone, partial(render_alpaca, needs_prompt=needs_prompt), trains_all=trains_all)
    if source.format == "text":
        return partial(_alone, partial(render_text, column="text", eos=tokenizer.eos_token), trains_all=False)
    texts = partial(
        render_completion,
        prompt_column="prompt",
        completion_column="completion",
        prefix=source.prompt_prefix,
        needs_prompt=needs_prompt,
    )

    @cache
    def chat() -> Conversed:
        return rendering_of(_chat(source, tokenizer, data), guard)

    is_pair = tokenizer.decoder_start_id is not None
    return partial(_completion, partial(_alone, texts, trains_all=trains_all), source, None if is_pair else chat)


def _chat(source: SourceConfig, tokenizer: TextTokenizer, data: DataConfig) -> Chat:
    if not tokenizer.has_chat_template:
        cure = "set data.chat_template: chatml, or a Jinja file; or use another format"
        raise DataError("this base has no chat template", where=f"{source.path} (format: {source.format})", cure=cure)
    tokenizer.check_template()
    return chat_of(tokenizer, data.train_on)


def _read(read: Map, render: Render, record: Mapping[str, Any]) -> Rendered:
    """A row rendered from the columns that the source names, with the notes of those that nothing reads."""
    mapped = read(record)
    if isinstance(mapped, Refusal):
        return mapped
    rows = render(mapped.record)
    if isinstance(rows, Refusal) or not (mapped.notes or mapped.references):
        return rows
    *others, last = (replace(row, notes=(*row.notes, *mapped.notes)) for row in rows)
    if mapped.references:
        last = replace(last, references=_as_written(last, mapped), notes=(*last.notes, SEVERAL))
    return (*others, last)


def _as_written(row: RenderedRow, mapped: Mapped) -> tuple[str, ...]:
    """The further answers with what the chat template writes around the row's own, such as an empty thought."""
    own, said = row.text[slice(*row.answer)], mapped.answer.strip()
    before, found, after = own.partition(said)
    if not found or not (before.strip() or after.strip()):
        return mapped.references
    return tuple(f"{before}{text.strip()}{after}" for text in mapped.references)


def _completion(
    render: Render, source: SourceConfig, chat: Callable[[], Conversed] | None, record: Mapping[str, Any]
) -> Rendered:
    """Texts as they are; a prompt or a completion that is a list of messages through the chat template, if any."""
    prompt, completion = record.get("prompt"), record.get("completion")
    if not are_messages(prompt) and not are_messages(completion):
        return render(record)
    if chat is None:
        return Refusal("invalid", "an encoder-decoder reads no conversation", "write prompt and completion as text")
    if source.prompt_prefix:
        return Refusal("invalid", "a prompt of messages has no place for prompt_prefix", "remove prompt_prefix")
    asked = messages_of(_as_messages(prompt, "user"), where="the prompt")
    answered = messages_of(_as_messages(completion, "assistant"), where="the completion")
    for part in (asked, answered):
        if isinstance(part, Refusal):
            return part
    assert isinstance(asked, Conversation) and isinstance(answered, Conversation)
    trains = (*(False for _ in asked.messages), *answered.trains)
    whole = Conversation(
        (*asked.messages, *answered.messages),
        trains,
        notes=(*asked.notes, *answered.notes),
        context_only=asked.context_only | {len(asked.messages) + number for number in answered.context_only},
    )
    found = with_columns(whole, record)
    return found if isinstance(found, Refusal) else chat()(found)


def _as_messages(value: Any, role: str) -> Any:
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def _alone(render: _One, record: Mapping[str, Any], *, trains_all: bool) -> Rendered:
    """The one row of a record, all of its text trained where `trains_all`."""
    row = render(record)
    if isinstance(row, Refusal):
        return row
    return (replace(row, spans=((0, len(row.text)),)) if trains_all else row,)


def _endless(render: Render, record: Mapping[str, Any]) -> Rendered:
    rows = render(record)
    if isinstance(rows, Refusal):
        return rows
    return tuple(replace(row, notes=(*row.notes, _NO_END)) if row.ends_turn else row for row in rows)
