"""The `data` section: sources, formats, lengths, and what happens to rows that do not fit."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from fledge.config.section import Section

Format = Literal["alpaca", "chat", "completion", "text"]
Overlong = Literal["drop", "truncate", "split", "error"]
InvalidRows = Literal["error", "drop"]
TrainOn = Literal["completion", "last", "all"]


def _as_list(value: Any) -> Any:
    """A document has tuples; a chat template compares with lists, to which no tuple is equal."""
    return list(value) if isinstance(value, tuple) else value


_TemplateScalar = bool | int | float | str | None
TemplateValue = _TemplateScalar | Annotated[list[_TemplateScalar], BeforeValidator(_as_list)]


Column = Annotated[str, Field(min_length=1)]
Columns = Column | Annotated[tuple[Column, ...], Field(min_length=1)]


class SourceConfig(Section):
    """Where rows come from and what they mean."""

    path: str = Field(min_length=1)
    """Hub id, file, folder or glob: json, jsonl, csv, tsv, xlsx, parquet, arrow, txt, and gz of the text ones."""
    format: Format
    """What a row holds: alpaca (instruction, input, output), chat (messages), completion (two columns) or text."""
    split: str = Field(default="train", min_length=1)
    """Split of a hub data set, or of a folder whose files or folders are named by split."""
    subset: str | None = Field(default=None, min_length=1)
    """Subset (configuration) of a hub data set, or of a folder that holds several."""
    revision: str | None = Field(default=None, min_length=1)
    """Branch, tag or commit of a hub data set."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """How many times an epoch sees each row of this source: 0.5 is every other row, 2 is each row twice."""
    columns: dict[str, Columns] = Field(default={})
    """Which column plays which role, such as {instruction: question, output: answer}. The roles of alpaca: instruction,
    input, output, system, history; chat: messages, system, tools, or user and assistant; completion: prompt,
    completion.
    """
    prompt: str = Field(default="prompt", min_length=1)
    """completion: the column that holds the prompt."""
    completion: Columns = "completion"
    """completion: the column that holds the completion. A list of columns where rows have several right answers: the
    first is trained, evaluation compares with all. The answer's role in `columns` takes a list too.
    """
    prompt_prefix: str = ""
    """completion: text put before each prompt."""
    prompt_template: str | None = Field(default=None, min_length=1)
    """completion, and chat from two columns: the prompt as text with {column} where a column's text goes."""
    text_column: str = Field(default="text", min_length=1)
    """text: the column that holds the text."""
    system_prompt: str | None = Field(default=None, min_length=1)
    """chat: the system message of rows that have none; alpaca: stands in place of the sentence before the prompt."""
    delimiter: str | None = Field(default=None, min_length=1)
    """csv, tsv: the character between two values; where null, comma, semicolon or tab is found."""


class ValidationFraction(Section):
    """A part of the training rows, held out."""

    fraction: float = Field(gt=0, lt=1)
    """Share of the training rows that is held out, chosen by the seed."""


def _kind(value: Any) -> str | None:
    """Which of the forms of a source `value` is meant to be, so that its errors are those of that form alone."""
    if isinstance(value, tuple | list):
        return "mixture"
    return "source" if isinstance(value, dict | SourceConfig) else None


def _kind_of_validation(value: Any) -> str | None:
    is_fraction = isinstance(value, ValidationFraction) or (isinstance(value, dict) and "fraction" in value)
    return "fraction" if is_fraction else _kind(value)


_Source = Annotated[SourceConfig, Tag("source")]
_Mixture = Annotated[tuple[SourceConfig, ...], Field(min_length=1), Tag("mixture")]
_Fraction = Annotated[ValidationFraction, Tag("fraction")]

Sources = Annotated[_Source | _Mixture, Discriminator(_kind)]
ValidationSources = Annotated[_Source | _Mixture | _Fraction, Discriminator(_kind_of_validation)]


class DataConfig(Section):
    """What is trained on."""

    train: Sources
    """A source, or a list of sources: a mixture."""
    validation: ValidationSources | None = None
    """{fraction: 0.01} of the training rows, or a source of its own; null for none."""
    test: Sources | None = None
    """A source for `fledge evaluate --on test`."""
    max_length: int = Field(default=512, ge=8, le=1_048_576)
    """Longest row in tokens; of an encoder-decoder (T5, BART) the longest source, the prompt."""
    max_target_length: int = Field(default=128, ge=4, le=1_048_576)
    """Longest target, the answer, in tokens: encoder-decoder only."""
    overlong: Overlong = "drop"
    """Rows longer than max_length or max_target_length: drop, truncate, split (text only) or error; always counted."""
    invalid_rows: InvalidRows = "error"
    """Rows that cannot be read (broken JSON, ragged CSV, not UTF-8, wrong type): error, or drop and count."""
    train_on: TrainOn = "completion"
    """completion: only answers are trained; last: of a conversation the last answer alone; all: the prompt too."""
    chat_template: str | None = Field(default=None, min_length=1)
    """chat: chatml or a Jinja file, for a base that brings no chat template of its own."""
    chat_template_kwargs: dict[str, TemplateValue] = Field(default={})
    """chat: values that the template reads, such as enable_thinking; the saved template has them as defaults."""
    sanitize_control_tokens: bool = True
    """Control tokens that a row's own text spells stay text; false: they become tokens. Not for the format text."""
    new_special_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Tokens the tokenizer lacks: added, trained, and saved with the adapter. chatml adds its own two."""
    new_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """As new_special_tokens, but ordinary: they stay in answers, where special tokens are left out."""
    shuffle: bool = True
    """Rows in another random order each epoch; false for the order of the files, one source after the other. Then a
    source with weight 2 comes twice in a row, and one with weight 0.5 gives one half, and the other half next time."""
    packing: bool | Literal["auto"] = "auto"
    """Put several rows into one without letting them see each other; no padding is computed. auto: where that is proven
    on this base; else rows are padded, and where padding changes what a row gives, each is computed alone."""
