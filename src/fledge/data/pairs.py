"""Rows of an encoder-decoder: source and target are tokenised, measured and fitted apart, and stored in a row.

The ids are those that `tokenizer(prompt)` and `tokenizer(text_target=completion)` of transformers give for T5 and BART.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fledge.config.data import DataConfig, Overlong, SourceConfig, ValidationFraction
from fledge.config.recipe import sources as listed
from fledge.data.fit import Fitted
from fledge.data.rows import Refusal, RenderedRow, TokenRow
from fledge.data.tokenize import LOSSY, Encoding, Text, TextTokenizer, lossy_answers
from fledge.errors import DataError

FORMATS = ("alpaca", "completion")
"""Those that tell a prompt from its answer."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """How the rows of an encoder-decoder are made. `overlong` is the recipe's, for the format at hand."""

    tokenizer: TextTokenizer
    data: DataConfig
    overlong: Overlong

    @property
    def limits(self) -> str:
        """How long the sides may be, in words."""
        return f"data.max_length is {self.data.max_length:,} and data.max_target_length {self.data.max_target_length:,}"

    @property
    def _ending(self) -> tuple[int, ...]:
        """What closes a target: the tokenizer's own ending, else the end token."""
        eos = self.tokenizer.eos_token_id
        return self.tokenizer.suffix_ids or (() if eos is None else (eos,))

    def texts(self, outcome: RenderedRow | Refusal) -> tuple[Text, ...]:
        """What is tokenised of a row: the prompt and the answer."""
        if isinstance(outcome, Refusal):
            stop = outcome.prompt_stop
            return Text(outcome.text[:stop]), Text(outcome.text[stop:])
        stop = outcome.answer[0]
        return Text.part(outcome, start=0, stop=stop), Text.part(outcome, start=stop, stop=len(outcome.text))

    def token_rows(self, rows: Sequence[RenderedRow], encodings: Sequence[tuple[Encoding, ...]]) -> list[TokenRow]:
        """The rows as ids, source and then target; `encodings` are those of their texts."""
        assert len(rows) == len(encodings)
        prefix, suffix = self.tokenizer.prefix_ids, self.tokenizer.suffix_ids
        lossy = lossy_answers(rows, [answer.ids for _, answer in encodings], tokenizer=self.tokenizer)
        joined = [
            self._joined([*prefix, *prompt.ids, *suffix], [*prefix, *answer.ids, *self._ending])
            for prompt, answer in encodings
        ]
        return [
            replace(row, is_lossy=True, notes=(LOSSY,)) if is_lossy else row
            for row, is_lossy in zip(joined, lossy, strict=True)
        ]

    def sizes(self, row: TokenRow) -> tuple[int, ...]:
        """Tokens of the source and of the target."""
        return row.num_source, len(row.ids) - row.num_source

    def size(self, row: TokenRow) -> str:
        """How long a row is, in words."""
        source, target = self.sizes(row)
        return f"{source:,} source tokens and {target:,} target tokens"

    def is_overlong(self, row: TokenRow) -> bool:
        """Whether one side is longer than the recipe allows."""
        source, target = self.sizes(row)
        return source > self.data.max_length or target > self.data.max_target_length

    def fit(self, row: TokenRow) -> Fitted:
        """What becomes of the row. truncate cuts the end of each side and keeps what closes it."""
        if not row.num_source:
            return Fitted((), dropped="empty_prompt")
        if not self.is_overlong(row):
            return Fitted((row,))
        if self.overlong != "truncate":
            return Fitted((), dropped="overlong")
        source = _cut(row.ids[: row.num_source], self.data.max_length, end=self.tokenizer.suffix_ids)
        target = _cut(row.ids[row.num_source :], self.data.max_target_length, end=self._ending)
        is_answer_cut = len(row.ids) - row.num_source > len(target)
        kept = replace(self._joined(source, target, has_answer=not is_answer_cut), notes=row.notes)
        return Fitted((kept,), num_cut=len(row.ids) - len(kept.ids), is_answer_cut=is_answer_cut)

    def _joined(self, source: list[int], target: list[int], *, has_answer: bool = True) -> TokenRow:
        first, last = len(source), len(source) + len(target)
        start = first + len(self.tokenizer.prefix_ids)
        answer = (start, last - len(self._ending) if has_answer else start)
        return TokenRow([*source, *target], ((first, last),), answer, num_source=first)


def _cut(ids: list[int], limit: int, *, end: tuple[int, ...]) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - len(end)], *end]


def limit_keys(tokenizer: TextTokenizer) -> str:
    """The options that bound a row, in words."""
    is_pair = tokenizer.decoder_start_id is not None
    return "data.max_length or data.max_target_length" if is_pair else "data.max_length"


def check_fits(data: DataConfig, tokenizer: TextTokenizer) -> None:
    """Raise DataError for the first option that the kind of the base, causal or encoder-decoder, leaves no sense."""
    if tokenizer.decoder_start_id is None:
        if data.max_target_length != DataConfig.model_fields["max_target_length"].default:
            what = "has no effect on a causal base: a row is one text, which data.max_length bounds"
            raise DataError(what, where="data.max_target_length", cure="remove it")
        return
    if data.train_on == "all":
        what = "an encoder-decoder reads the prompt and cannot be trained on it"
        raise DataError(what, where="data.train_on", cure="write data.train_on: completion, or choose a causal base")
    for where, source in _located(data):
        if source.format not in FORMATS:
            what = f"an encoder-decoder needs a prompt and its answer, and {source.format} does not tell them apart"
            cure = f"write {where}.format: completion, or alpaca, or choose a causal base"
            raise DataError(what, where=f"{where}.format", cure=cure)


def _located(data: DataConfig) -> Iterator[tuple[str, SourceConfig]]:
    """Every source with its key."""
    for name, value in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        if not isinstance(value, ValidationFraction):
            for index, source in enumerate(listed(value)):
                yield f"data.{name}.{index}" if isinstance(value, tuple) else f"data.{name}", source
