"""Chat templates: found by name or file, checked, and rendered alike for training and for generation."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
from transformers.utils.chat_template_utils import render_jinja_template

from fledge.config.nearest import nearest_name
from fledge.errors import DataError, ModelError

CHATML = (
    "{% if tools %}{{ '<|im_start|>system\\n' }}"
    "{% if messages and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\\n\\n' }}{% endif %}"
    "{{ 'You can call functions. Each line between <tools> and </tools> is the JSON of one function.\\n<tools>\\n' }}"
    "{% for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}"
    "{{ '</tools>\\nTo call a function, write <tool_call>, a line of JSON with its name and arguments, ' }}"
    "{{ 'and </tool_call>.<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{% if not (tools and loop.first and message['role'] == 'system') %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['reasoning_content'] %}"
    "{{ '<think>\\n' + message['reasoning_content'] + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{% if message['content'] or not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ '<tool_call>\\n{\"name\": ' + call.function.name | tojson }}"
    "{{ ', \"arguments\": ' + call.function.arguments | tojson + '}\\n</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""OpenAI's ChatML as Jinja: one block a message, closed by <|im_end|>. Reasoning, tools and calls of tools are written
as text between tags, as Qwen's and Hermes' templates do.
"""

RENDERING = "2"
"""Raised whenever the same template and messages come out as another text, so that no older rows are taken for it."""

TODAY = date(2024, 7, 26)
"""What every template is told the day is: the date that Llama 3's own falls back to.

The clock's date would give another text tomorrow than the one that was trained on.
"""

_NAMED: dict[str, tuple[str, tuple[str, ...]]] = {"chatml": (CHATML, ("<|im_start|>", "<|im_end|>"))}
_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_GENERATION_TAG = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_GIVEN = frozenset(
    "messages tools documents add_generation_prompt strftime_now raise_exception "
    "bos_token eos_token unk_token pad_token sep_token cls_token mask_token".split()
)
"""What every template is given, or what is part of the language: none of these is an option."""
_DIRECTIVES = "aAbBcdHIjmMpSuUVwWxXyYZDFTRe"


def _clock() -> str:
    """A strftime_now written in Jinja (what is handed to a template as a value cannot be called), stopped at TODAY.

    The line end after it is taken away by Jinja, so the template itself still starts at the start of a line.
    """
    written = {"%%": "\\x01"} | {f"%{letter}": TODAY.strftime(f"%{letter}") for letter in _DIRECTIVES}
    written |= {f"%-{letter}": text.lstrip("0") or "0" for letter in "dmHIMSj" if (text := written[f"%{letter}"])}
    written["\\x01"] = "%"
    filters = "".join(f" | replace('{directive}', '{text}')" for directive, text in written.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}\n"


_CLOCK = _clock()


def named_template(name_or_file: str) -> tuple[str, tuple[str, ...]]:
    """A template's text and the special tokens that it needs. Raises ModelError where there is none to read."""
    if name_or_file in _NAMED:
        return _NAMED[name_or_file]
    where, path = f"data.chat_template: {name_or_file}", Path(name_or_file)
    cure = f"give a Jinja file, or {', '.join(_NAMED)}"
    if not path.is_file():
        raise ModelError("no such chat template", where=where, cure=cure)
    try:
        return path.read_text(encoding="utf-8"), ()
    except UnicodeDecodeError as error:
        raise ModelError("the chat template is not a text in UTF-8", where=where, cure=cure) from error
    except OSError as error:
        raise ModelError(f"the chat template cannot be read: {error.strerror}", where=where, cure=cure) from error


def single(template: str | Mapping[str, str]) -> str:
    """The one template of a tokenizer that may have several by name."""
    if isinstance(template, str):
        return template
    return template.get("default") or next(iter(template.values()))


def asks_the_date(template: str) -> bool:
    """Whether the template may write the day it is rendered on."""
    return "strftime_now" in template


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tokens: Mapping[str, Any],
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    options: Mapping[str, Any] | None = None,
) -> str:
    """The template's text for a conversation.

    `tokens` are the special tokens by the names that templates know, `tools` the functions that may be called, and
    `options` further values that the template reads. Raises DataError with the template's own words where it refuses,
    and where it is no Jinja.
    """
    try:
        rendered, _ = render_jinja_template(
            [list(messages)],
            tools=[dict(tool) for tool in tools] or None,
            chat_template=with_clock(template),
            add_generation_prompt=add_generation_prompt,
            **{**tokens, **(options or {})},
        )
    except jinja2.TemplateSyntaxError as error:
        raise _no_jinja(template, error) from error
    except _FAILURES as error:
        raise DataError(f"the chat template refuses this conversation: {error}") from error
    return str(rendered[0])


def answer_spans(
    template: str, messages: Sequence[Mapping[str, Any]], *, tokens: Mapping[str, Any]
) -> list[tuple[int, int]] | None:
    """Character ranges that the template's own {% generation %} tags mark; None where it has no such tags."""
    if not _GENERATION_TAG.search(template):
        return None
    stopped = with_clock(template)
    try:
        _, spans = render_jinja_template(
            [list(messages)], chat_template=stopped, return_assistant_tokens_mask=True, **tokens
        )
    except (jinja2.TemplateSyntaxError, *_FAILURES):
        return None
    return [(int(start), int(stop)) for start, stop in spans[0]]


def with_defaults(template: str, options: Mapping[str, Any]) -> str:
    """The template with `options` as the values of names that the caller does not give.

    They are written at its beginning, so that every program that renders the saved template uses them. Raises DataError
    for a name that the template does not read.
    """
    known = names_read(template)
    for name in options:
        if name not in known:
            near = nearest_name(name, sorted(known))
            cure = f"did you mean {near}?" if near else f"this template reads: {', '.join(sorted(known)) or 'none'}"
            where = f"data.chat_template_kwargs.{name}"
            raise DataError(f"the chat template does not read {name!r}", where=where, cure=cure)
    lines = [
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}\n"
        for name, value in options.items()
    ]
    return "".join(lines) + template


def names_read(template: str) -> frozenset[str]:
    """The names that a caller may give to the template besides the messages, the tools and the special tokens.

    Raises DataError where the template is no Jinja.
    """
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION_TAG.sub("", template))
    except jinja2.TemplateSyntaxError as error:
        raise _no_jinja(template, error) from error
    return frozenset(jinja2.meta.find_undeclared_variables(tree)) - _GIVEN


def _literal(value: Any) -> str:
    """A value of a recipe as Jinja writes it. JSON's text has no brace, percent or line end that Jinja would take."""
    if isinstance(value, str):
        return (
            json.dumps(value, ensure_ascii=False)
            .replace("{", "\\x7b")
            .replace("}", "\\x7d")
            .replace("%", "\\x25")
            .replace("#", "\\x23")
        )
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def check(template: str) -> None:
    """Raise DataError where the template is no Jinja; what it says to a conversation is not asked."""
    try:
        render_jinja_template([[]], chat_template=with_clock(template))
    except jinja2.TemplateSyntaxError as error:
        raise _no_jinja(template, error) from error
    except _FAILURES:  # it is Jinja; that it does not like an empty conversation is no fault
        return


def with_clock(template: str) -> str:
    """The template with a clock that stands at TODAY, where it may ask for the time."""
    return _CLOCK + template if asks_the_date(template) else template


def _no_jinja(template: str, error: jinja2.TemplateSyntaxError) -> DataError:
    line = error.lineno - asks_the_date(template) * _CLOCK.count("\n")
    what = f"the chat template is no valid Jinja: {error.message} (line {line})"
    return DataError(what, where="data.chat_template", cure="mend the template, or set data.chat_template to another")
