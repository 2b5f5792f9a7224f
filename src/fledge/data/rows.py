"""The values that pass through the data room: a rendered row, a tokenised row, a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fledge.data.share import Segment

TEXT_COLUMN = "\n"
"""The column of a text file's one row: a name that no recipe can ask for by accident."""


def is_text_file(record: Mapping[str, Any]) -> bool:
    """True for the one row that a text file is."""
    return len(record) == 1 and TEXT_COLUMN in record


Reason = Literal[
    "invalid", "empty", "empty_prompt", "empty_completion", "labelled_bad", "no_supervised_token", "overlong"
]


@dataclass(frozen=True, slots=True)
class RawRow:
    """One record of a source: `number` counts from 1 (lines in a line format, rows elsewhere)."""

    number: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row is not trained on. `invalid` stops the run unless the recipe says drop; the others are counted."""

    reason: Reason
    what: str
    cure: str = ""
    text: str = ""
    """What of the row could be rendered, so that its tokens are counted as dropped."""
    prompt_stop: int = 0
    """Where in `text` the prompt ends."""


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A place in a source where a row should be and none can be read."""

    number: int
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row as text. `spans` are the trained parts as half-open character ranges, in order, not touching."""

    text: str
    spans: tuple[tuple[int, int], ...]
    has_specials: bool
    """True where the text already holds its special tokens (a chat template's): none is put before it."""
    ends_turn: bool
    """True where an end-of-turn token must stand after the text unless the text ends with one."""
    answer: tuple[int, int] = (0, 0)
    """The last answer without what ends its turn: what a generated answer is compared with."""
    literals: tuple[int, ...] = ()
    """Where the row's own text spells control tokens that must stay text."""
    notes: tuple[str, ...] = ()
    """What a person should know of this row; counted in the ledger."""
    references: tuple[str, ...] = ()
    """Further right answers beside the last one; never trained."""
    system: str | None = None
    """The system text of a conversation, empty where it has none; None where the format has no such thing."""
    options: str = "{}"
    """The values that a conversation brings for the chat template, as JSON."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row as ids. `ranges` are the trained tokens as half-open ranges, in order, never with token 0 in them."""

    ids: list[int]
    ranges: tuple[tuple[int, int], ...]
    answer: tuple[int, int]
    """The last answer's tokens, without what ends its turn."""
    num_repeated: int = 0
    """Tokens at the start that another piece has already: context, never trained."""
    num_source: int = 0
    """Encoder-decoder: how many tokens, the first ones, are the source; the target follows."""
    asked: tuple[int, ...] | None = None
    """The ids of the prompt where it is tokenised alone; None where these are the row's own ids before the answer."""
    is_lossy: bool = False
    """Whether the ids cannot be decoded to the answer's text, because the tokenizer lacks characters of it."""
    notes: tuple[str, ...] = ()
    """What a person should know of this row's tokens; counted in the ledger."""
    references: tuple[str, ...] = ()
    """Further right answers, as text."""

    @property
    def supervised_tokens(self) -> int:
        return sum(stop - start for start, stop in self.ranges)


@dataclass(frozen=True, slots=True)
class Row:
    """One tokenised row. Both arrays are [length]; `trained[t]` says that token t is a target.

    Of an encoder-decoder: the source, no token of which is trained, and then the target, every token of which is.
    """

    input_ids: NDArray[np.int32]
    trained: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EncoderSide:
    """The sources of a micro-batch of an encoder-decoder, in the order of the batch's documents.

    B rows of S positions, packed or padded on the right as the batch is.
    """

    input_ids: torch.Tensor
    """[B, S] int64"""
    position_ids: torch.Tensor
    """[B, S] int64, from 0 in each document"""
    attention_mask: torch.Tensor | None
    """[B, S] int64, 1 on real positions; None where there is no padding"""
    lengths: tuple[int, ...]
    """Tokens of each document's source."""


@dataclass(frozen=True, slots=True)
class TrunkUse:
    """That a batch begins with the trunk of its step: computed with the first batch, its gradient with the last."""

    positions: int
    """The first ones of the batch, the same tokens in every batch of the step."""
    is_first: bool
    is_last: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch.

    B rows of T positions; packed: B = 1 and `lengths` are the documents in order; padded: B = len(lengths) and
    position t of row b is real where t < lengths[b]. Where `segments` share what documents begin with, T is less than
    the sum of `lengths`. Position sources[which[i]], counted through all rows, must predict targets[i].

    Of an encoder-decoder these are the decoder's inputs: what it starts with and the target without its last token, so
    that every position predicts one token of the target; `encoder` holds the sources.
    """

    input_ids: torch.Tensor
    """[B, T] int64"""
    sources: torch.Tensor
    """[M] int64, rising: the positions that something is predicted from, each once"""
    targets: torch.Tensor
    """[N] int64: the supervised tokens"""
    position_ids: torch.Tensor
    """[B, T] int64, from 0 in each document"""
    attention_mask: torch.Tensor | None
    """[B, T] int64, 1 on real positions; None where there is no padding"""
    lengths: tuple[int, ...]
    """Positions of each document; of an encoder-decoder the decoder's."""
    rows: tuple[int, ...]
    """Index in the token store of each document."""
    is_packed: bool
    num_tokens: int
    """Real tokens of the documents, padding left out, shared ones counted each time; sources and targets both."""
    segments: tuple[Segment, ...] = ()
    """Packed: what the row is made of, in order; without sharing one segment a document."""
    which: torch.Tensor | None = None
    """[N] int64, rising: which of `sources` predicts each target; None where they are one to one, as they are unless
    documents share a position that different tokens follow."""
    encoder: EncoderSide | None = None
    """What an encoder-decoder reads; None for a causal model."""
    trunk: TrunkUse | None = None
    """None where the batch shares nothing with the others of its step."""

    @property
    def supervised_tokens(self) -> int:
        """Tokens that are predicted."""
        return int(self.targets.shape[0])
