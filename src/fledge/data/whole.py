"""Rows of a causal model: prompt and answer are one text, which is tokenised, measured and fitted as one."""

from collections.abc import Sequence
from dataclasses import dataclass

from fledge.config.data import DataConfig, Overlong
from fledge.data.fit import Fitted, fit
from fledge.data.rows import Refusal, RenderedRow, TokenRow
from fledge.data.tokenize import Encoding, Text, TextTokenizer, token_rows


@dataclass(frozen=True, slots=True)
class Whole:
    """How the rows of a causal model are made. `overlong` is the recipe's, for the format at hand."""

    tokenizer: TextTokenizer
    data: DataConfig
    overlong: Overlong

    @property
    def limits(self) -> str:
        """How long a row may be, in words."""
        return f"data.max_length is {self.data.max_length:,}"

    def texts(self, outcome: RenderedRow | Refusal) -> tuple[Text, ...]:
        """What is tokenised of a row: its text, and its prompt once more where it has one."""
        if isinstance(outcome, Refusal):
            return (Text(outcome.text),)
        whole, start = Text(outcome.text, outcome.literals), outcome.answer[0]
        return (whole, Text.part(outcome, start=0, stop=start)) if 0 < start < outcome.answer[1] else (whole,)

    def token_rows(self, rows: Sequence[RenderedRow], encodings: Sequence[tuple[Encoding, ...]]) -> list[TokenRow]:
        """The rows as ids; `encodings` are those of their texts."""
        prompts = [one[1] if len(one) > 1 else None for one in encodings]
        return token_rows(rows, [one[0] for one in encodings], tokenizer=self.tokenizer, prompts=prompts)

    def sizes(self, row: TokenRow) -> tuple[int, ...]:
        """Tokens of the row."""
        return (len(row.ids),)

    def size(self, row: TokenRow) -> str:
        """How long a row is, in words."""
        return f"{len(row.ids):,} tokens"

    def is_overlong(self, row: TokenRow) -> bool:
        """Whether the row is longer than the recipe allows."""
        return len(row.ids) > self.data.max_length

    def fit(self, row: TokenRow) -> Fitted:
        """What becomes of the row."""
        return fit(row, max_length=self.data.max_length, overlong=self.overlong, prefix=self.tokenizer.prefix_ids)
