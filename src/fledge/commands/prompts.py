"""Prompts as a run learnt them: a person's text in the form of the run's training data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fledge.commands.manifest import read_object
from fledge.commands.open_run import OpenRun
from fledge.config.data import SourceConfig
from fledge.config.recipe import Recipe, sources
from fledge.data.formats.chat import chat_of
from fledge.data.formats.control import control_of, text_of_people
from fledge.data.formats.dialect import spoken
from fledge.data.formats.messages import Conversation
from fledge.data.formats.plain import alpaca_prompt
from fledge.data.formats.template import prompt_of
from fledge.data.tokenize import Text, asked_ids, encode_texts
from fledge.errors import DataError, RunError
from fledge.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a person asks. `context` is alpaca's input; `is_raw` sends the text as it is.

    `system` is the system text of the conversation. None stands for the one that all training rows share, if they do.
    `options` are values for the chat template.
    """

    text: str
    context: str = ""
    is_raw: bool = False
    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def source_of(recipe: Recipe) -> SourceConfig:
    """The source whose form prompts take: the first that is trained on."""
    return sources(recipe.data.train)[0]


def settled(prompt: Prompt, opened: OpenRun) -> Prompt:
    """The prompt with what the run's training rows share where it brings none: a system text, values for the chat
    template.
    """
    if prompt.is_raw:
        return prompt
    system = shared_system(opened) if prompt.system is None else prompt.system
    return replace(prompt, system=system, options=prompt.options or shared_options(opened))


def shared_options(opened: OpenRun) -> Mapping[str, Any]:
    """The values for the chat template that all rows of the run's first source bring; empty where they bring none or
    different ones. Raises RunError where the run's ledger cannot be read.
    """
    if source_of(opened.recipe).format != "chat":
        return {}
    shared = _ledger_entry(opened.run.ledger).get("chat_template_kwargs", {})
    return shared if isinstance(shared, dict) else {}


def shared_system(opened: OpenRun) -> str:
    """The system text that all rows of the run's first source share, else the one that the recipe gives to rows without
    one; empty where there is none. Raises RunError where the run's ledger cannot be read.
    """
    source = source_of(opened.recipe)
    given = source.system_prompt or ""
    if source.format != "chat":  # alpaca's prompt has it in it
        return ""
    shared = _ledger_entry(opened.run.ledger).get("system", "")
    return (shared if isinstance(shared, str) else "") or given


def _ledger_entry(path: Path) -> dict[str, Any]:
    """What the ledger says of the run's first source; nothing where there is no ledger.

    Raises RunError where it cannot be read.
    """
    cure = (
        "put back the file that the training wrote, or remove it and give --system where the rows shared a system text"
    )
    ledger = read_object(path, cure=cure)
    try:
        return dict(ledger["sources"]["train"][0]) if ledger else {}
    except (LookupError, TypeError, ValueError) as error:
        what = "this file of the run cannot be read: it does not say what became of the training rows"
        raise RunError(what, where=str(path), cure=cure) from error


def prompt_text(prompt: Prompt, recipe: Recipe, *, tokenizer: Tokenizer) -> tuple[Text, bool]:
    """The text that goes to the model, and whether it brings its own special tokens.

    A control token that the person writes stays text, but in a raw prompt and in the format text, whose prompts bring
    their control tokens. Raises DataError for an input or a system text where the run's format has no place for one.
    """
    source, control = source_of(recipe), control_of(tokenizer, recipe.data.new_special_tokens)
    _check_places(prompt, source)
    if prompt.is_raw or source.format == "text":
        return Text(prompt.text), False
    if source.format == "chat":
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        asked = {"role": "user", "content": prompt_of(source, prompt.text)}
        return conversation_text([*messages, asked], recipe, tokenizer=tokenizer, options=prompt.options), True
    if source.format == "alpaca":
        words = [prompt.text, prompt.context, prompt.system or ""]

        def alpaca(said: Sequence[str]) -> str:
            return alpaca_prompt(said[0], said[1], system=said[2] or source.system_prompt or "")

        return text_of_people(words, alpaca, control=control), False
    return text_of_people(prompt.text, lambda said: prompt_of(source, said), control=control), False


def _check_places(prompt: Prompt, source: SourceConfig) -> None:
    form = "a raw prompt" if prompt.is_raw else f"the run's format, {source.format},"
    if prompt.context and (prompt.is_raw or source.format != "alpaca"):
        raise DataError(f"{form} has no place for an input", where="--input", cure="write it into the prompt")
    if prompt.system and (prompt.is_raw or source.format not in ("chat", "alpaca")):
        raise DataError(f"{form} has no place for a system text", where="--system", cure="write it into the prompt")


def prompt_ids(prompt: Prompt, recipe: Recipe, *, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a prompt, begun as training rows begin: with the tokenizer's prefix, never doubled.

    For an encoder-decoder they are the whole source, which ends as the tokenizer ends a text.
    """
    text, has_specials = prompt_text(prompt, recipe, tokenizer=tokenizer)
    return text_ids(text, tokenizer, has_specials=has_specials)


def conversation_text(
    messages: Sequence[Mapping[str, Any]],
    recipe: Recipe,
    *,
    tokenizer: Tokenizer,
    options: Mapping[str, Any] | None = None,
) -> Text:
    """A conversation by the chat template, up to where the assistant speaks next: as evaluation asks a row.

    `options` are values for the template, as a row brings them.
    """
    chat = chat_of(tokenizer, "completion")

    def render(said: Sequence[dict[str, Any]]) -> str:
        conversation = Conversation(tuple(said), (False,) * len(said), options=options or {})
        return chat.prompt(conversation, spoken(conversation, chat.dialect))

    control = control_of(tokenizer, recipe.data.new_special_tokens)
    return text_of_people([dict(message) for message in messages], render, control=control)


def conversation_ids(
    messages: Sequence[Mapping[str, Any]],
    recipe: Recipe,
    *,
    tokenizer: Tokenizer,
    options: Mapping[str, Any] | None = None,
) -> list[int]:
    """Token ids of a conversation by the chat template, up to where the assistant speaks next."""
    text = conversation_text(messages, recipe, tokenizer=tokenizer, options=options)
    return text_ids(text, tokenizer, has_specials=True)


def text_ids(text: Text, tokenizer: Tokenizer, *, has_specials: bool) -> list[int]:
    """Token ids of the text of a prompt."""
    [encoding] = encode_texts(tokenizer, [text])
    return asked_ids(encoding.ids, tokenizer, has_specials=has_specials)
