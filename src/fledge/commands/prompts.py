"""Prompts as a run learnt them: a person's text in the form of the run's training data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fledge.config.data import SourceConfig
from fledge.config.recipe import Recipe, sources
from fledge.data.formats.plain import alpaca_prompt
from fledge.data.formats.template import prompt_of
from fledge.errors import DataError
from fledge.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a person asks. `context` is alpaca's input; `is_raw` sends the text as it is."""

    text: str
    context: str = ""
    is_raw: bool = False


def source_of(recipe: Recipe) -> SourceConfig:
    """The source whose form prompts take: the first that is trained on."""
    return sources(recipe.data.train)[0]


def prompt_text(prompt: Prompt, recipe: Recipe, *, tokenizer: Tokenizer) -> tuple[str, bool]:
    """The text that goes to the model, and whether it brings its own special tokens.

    Raises DataError for a context where the run's format has no place for one.
    """
    source = source_of(recipe)
    if prompt.context and (prompt.is_raw or source.format != "alpaca"):
        what = "a raw prompt" if prompt.is_raw else f"the run's format, {source.format},"
        raise DataError(f"{what} has no place for an input", where="--input", cure="write it into the prompt")
    if prompt.is_raw or source.format == "text":
        return prompt.text, False
    if source.format == "alpaca":
        return alpaca_prompt(prompt.text, prompt.context, system=source.system_prompt or ""), False
    if source.format == "completion":
        return prompt_of(source, prompt.text), False
    asked = [{"role": "user", "content": prompt_of(source, prompt.text)}]
    system = [{"role": "system", "content": source.system_prompt}] if source.system_prompt is not None else []
    return tokenizer.render([*system, *asked], add_generation_prompt=True), True


def prompt_ids(prompt: Prompt, recipe: Recipe, *, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a prompt, begun as training rows begin: with the tokenizer's prefix, never doubled.

    For an encoder-decoder they are the whole source, which ends as the tokenizer ends a text.
    """
    text, has_specials = prompt_text(prompt, recipe, tokenizer=tokenizer)
    return _encode(text, tokenizer, has_specials=has_specials)


def conversation_ids(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> list[int]:
    """Token ids of a conversation by the chat template, up to where the assistant speaks next."""
    return _encode(tokenizer.render(messages, add_generation_prompt=True), tokenizer, has_specials=True)


def _encode(text: str, tokenizer: Tokenizer, *, has_specials: bool) -> list[int]:
    ids = list(tokenizer.encode_batch([text])[0].ids)
    prefix = list(tokenizer.prefix_ids)
    if tokenizer.decoder_start_id is not None:
        return [*prefix, *ids, *tokenizer.suffix_ids] if ids else []
    return ids if has_specials or ids[: len(prefix)] == prefix else [*prefix, *ids]
