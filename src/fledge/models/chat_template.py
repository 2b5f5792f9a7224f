"""Chat templates: found by name or file, checked, and rendered alike for training and for generation."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from fledge.errors import DataError, ModelError

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""OpenAI's ChatML as Jinja: one block a message, closed by <|im_end|>."""

RENDERING = "1"
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


def asks_the_date(template: str) -> bool:
    """Whether the template may write the day it is rendered on."""
    return "strftime_now" in template


def render(
    template: str, messages: Sequence[Mapping[str, Any]], *, tokens: Mapping[str, Any], add_generation_prompt: bool
) -> str:
    """The template's text for a conversation, `tokens` being the special tokens by the names templates know.

    Raises DataError with the template's own words where it refuses, and where it is no Jinja.
    """
    try:
        rendered, _ = render_jinja_template(
            [list(messages)],
            chat_template=_with_clock(template),
            add_generation_prompt=add_generation_prompt,
            **tokens,
        )
    except jinja2.TemplateSyntaxError as error:
        raise _no_jinja(template, error) from error
    except _FAILURES as error:
        raise DataError(f"the chat template refuses this conversation: {error}") from error
    return str(rendered[0])


def check(template: str) -> None:
    """Raise DataError where the template is no Jinja; what it says to a conversation is not asked."""
    try:
        render_jinja_template([[]], chat_template=_with_clock(template))
    except jinja2.TemplateSyntaxError as error:
        raise _no_jinja(template, error) from error
    except _FAILURES:  # it is Jinja; that it does not like an empty conversation is no fault
        return


def _with_clock(template: str) -> str:
    return _CLOCK + template if asks_the_date(template) else template


def _no_jinja(template: str, error: jinja2.TemplateSyntaxError) -> DataError:
    line = error.lineno - asks_the_date(template) * _CLOCK.count("\n")
    what = f"the chat template is no valid Jinja: {error.message} (line {line})"
    return DataError(what, where="data.chat_template", cure="mend the template, or set data.chat_template to another")
