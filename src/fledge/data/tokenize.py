"""From rendered text to token ids and a mask, by character offsets."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fledge.data.rows import RenderedRow, TokenRow


class Encoding(Protocol):
    """One tokenised text, as the tokenizers library returns it."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def offsets(self) -> list[tuple[int, int]]: ...
    def char_to_token(self, char_pos: int, sequence_index: int = 0) -> int | None: ...
    def token_to_chars(self, token_index: int) -> tuple[int, int] | None: ...
    def __len__(self) -> int: ...


class TextTokenizer(Protocol):
    """What the data room needs of a tokenizer; the models room's Tokenizer is one."""

    @property
    def identity(self) -> str:
        """Digest of everything that decides ids and rendered text (vocabulary, rules, template, added tokens)."""

    @property
    def bos_token(self) -> str | None: ...
    @property
    def eos_token(self) -> str | None: ...
    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int | None: ...
    @property
    def pad_token_id(self) -> int:
        """Some valid id; padding is masked by position, so any will do."""

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Ids that the tokenizer itself puts before a plain text (a BOS, or nothing)."""

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        """Ids that the tokenizer itself puts after a plain text (T5's end token, or nothing)."""

    @property
    def decoder_start_id(self) -> int | None:
        """The id that the decoder of an encoder-decoder starts with; None for a causal model."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Every special or added token, text to id."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids after which an answer is complete: the EOS, and what the chat template closes a last turn with."""

    @property
    def template_notes(self) -> tuple[str, ...]:
        """What a person should know of every text that the chat template writes."""

    def check_template(self) -> None:
        """Raise DataError where the chat template is no valid Jinja."""

    @property
    def has_chat_template(self) -> bool: ...
    def encode_batch(self, texts: Sequence[str]) -> Sequence[Encoding]:
        """Tokenise without adding special tokens; special tokens written in the text become their ids."""

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> str:
        """The chat template's text. Raises DataError with the template's own words where it refuses."""


Span = tuple[int, int]


def token_rows(
    rows: Sequence[RenderedRow], encodings: Sequence[Encoding], *, tokenizer: TextTokenizer
) -> list[TokenRow]:
    """Carry the spans of rendered rows over to the tokens of their texts.

    The tokenizer's own prefix (a BOS) is put before unless the text brings its special tokens or starts with it;
    the EOS, trained, is put after where the row asks for one and has none. Token 0 is nobody's target.
    """
    prefix, eos = tokenizer.prefix_ids, tokenizer.eos_token_id
    return [_token_row(row, encoding, prefix, eos) for row, encoding in zip(rows, encodings, strict=True)]


def _token_row(row: RenderedRow, encoding: Encoding, prefix: tuple[int, ...], eos: int | None) -> TokenRow:
    ids = encoding.ids
    length = len(ids)
    ranges = token_ranges(encoding, row.spans, text_length=len(row.text))
    same = row.spans == (row.answer,)
    answer = ranges if same else token_ranges(encoding, (row.answer,), text_length=len(row.text))
    start, stop = (answer[0][0], answer[-1][1]) if answer else (length, length)
    shift = 0
    if prefix and not row.has_specials and tuple(ids[: len(prefix)]) != prefix:
        ids = [*prefix, *ids]
        shift = len(prefix)
    if row.ends_turn and eos is not None and ids[-1:] != [eos]:
        ids.append(eos)
        ranges = _merged([*ranges, (length, length + 1)])
    moved = tuple((max(first + shift, 1), last + shift) for first, last in ranges if last + shift > 1)
    stop += shift
    return TokenRow(ids, moved, (min(max(start + shift, 1), stop), stop))


def token_ranges(encoding: Encoding, spans: Sequence[Span], *, text_length: int) -> tuple[Span, ...]:
    """Ranges of the tokens that overlap the spans of text; a token that straddles an end is inside.

    The fast path: only the tokens at the spans' ends are looked up. Where one of those characters belongs to no
    token, the reference `token_ranges_by_offsets` decides; both give the same wherever both can answer.
    """
    length = len(encoding)
    found = []
    for start, stop in spans:
        if start >= stop:
            continue
        first = 0 if start == 0 else encoding.char_to_token(start)
        last = _stop_of(encoding, stop, length) if stop < text_length else length
        if first is None or last is None:
            return token_ranges_by_offsets(encoding.offsets, spans)
        found.append((first, last))
    return _merged(found)


def _stop_of(encoding: Encoding, stop: int, length: int) -> int | None:
    """Index after the last token that holds a character before `stop`."""
    after = encoding.char_to_token(stop)
    if after is None or encoding.char_to_token(stop - 1) is None:
        return None
    characters = encoding.token_to_chars(after)
    if characters is None:
        return None
    while characters is not None and characters[0] < stop:
        after += 1
        characters = encoding.token_to_chars(after) if after < length else None
    return after


def _merged(ranges: Sequence[Span]) -> tuple[Span, ...]:
    """The same positions in as few ranges as can be; `ranges` are in order and may touch or overlap."""
    merged: list[Span] = []
    for first, last in ranges:
        if first >= last:
            continue
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def token_ranges_by_offsets(offsets: Sequence[Span], spans: Sequence[Span]) -> tuple[Span, ...]:
    """The reference: every token's characters are compared with every span.

    Characters that no token claims (white space that a tokenizer trims off its offsets) belong to the token that
    follows; a token that claims none stands where it stands, and is inside a span that holds that place.
    """
    found = []
    reached = 0
    for index, (start, end) in enumerate(offsets):
        begin = min(start, reached)
        reached = max(reached, end)
        for first, last in spans:
            if (begin < last and end > first) or (begin == end and first <= begin < last):
                found.append((index, index + 1))
                break
    return _merged(found)
