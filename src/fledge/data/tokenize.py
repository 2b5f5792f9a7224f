"""From rendered text to token ids and a mask, by character offsets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    def is_lossless(self) -> bool:
        """Whether every text comes back when its ids are decoded, space around it left aside."""

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of ids, special tokens written out."""

    @property
    def template_notes(self) -> tuple[str, ...]:
        """What a person should know of every text that the chat template writes."""

    def check_template(self) -> None:
        """Raise DataError where the chat template is no valid Jinja."""

    @property
    def control_tokens(self) -> frozenset[str]:
        """The tokens that steer the model: special ones, and those that the chat template puts around people's text."""

    @property
    def template_tokens(self) -> frozenset[str]:
        """The added tokens that the chat template writes around people's text and at the end of answers."""

    @property
    def has_chat_template(self) -> bool: ...
    def marked_answers(self, messages: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]] | None:
        """Character ranges that the template's {% generation %} tags mark; None where it has no such tags."""

    def template_names(self, field: str) -> bool:
        """Whether the chat template's text names this field of a message."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Encoding]:
        """Tokenise without adding special tokens; special tokens written in the text become their ids."""

    def encode_literal(self, text: str, literals: Sequence[int]) -> Encoding:
        """Tokenise as `encode_batch` does, but control tokens that begin at the positions `literals` stay text."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The chat template's text. Raises DataError with the template's own words where it refuses."""


Span = tuple[int, int]
SHARED_TOKEN = (
    "prompt and answer share a token, so a prompt that is asked alone ends with other tokens than in training; "
    "an answer that begins with a space or a line break mends it"
)
OTHER_TOKENS = "the prompt has other tokens when it is asked alone than before its answer"
LOSSY = "the tokenizer cannot write the answer as it is: what it lacks becomes <unk> or is changed"


@dataclass(frozen=True, slots=True)
class Text:
    """A text to be tokenised; control tokens that begin at the positions `literals` stay text."""

    text: str
    literals: tuple[int, ...] = ()

    @classmethod
    def part(cls, row: RenderedRow, *, start: int, stop: int) -> "Text":
        """Characters start..stop of a row."""
        literals = tuple(place - start for place in row.literals if start <= place < stop)
        return cls(row.text[start:stop], literals)


def encode_texts(tokenizer: TextTokenizer, texts: Sequence[Text]) -> list[Encoding]:
    """Each text tokenised, without special tokens around it."""
    plain = iter(tokenizer.encode_batch([one.text for one in texts if not one.literals]))
    return [tokenizer.encode_literal(one.text, one.literals) if one.literals else next(plain) for one in texts]


def asked_ids(ids: Sequence[int], tokenizer: TextTokenizer, *, has_specials: bool) -> list[int]:
    """Ids of a prompt that is given to a model, from those of its text.

    It begins as training rows do: with the tokenizer's prefix, never doubled. For an encoder-decoder it is the whole
    source, which ends as the tokenizer ends a text; nothing is asked where there is no text.
    """
    prefix = list(tokenizer.prefix_ids)
    if tokenizer.decoder_start_id is not None:
        return [*prefix, *ids, *tokenizer.suffix_ids] if ids else []
    return list(ids) if has_specials or list(ids[: len(prefix)]) == prefix else [*prefix, *ids]


def lossy_answers(
    rows: Sequence[RenderedRow], answers: Sequence[Sequence[int]], *, tokenizer: TextTokenizer
) -> list[bool]:
    """For each row, whether the ids of its answer cannot be decoded to the answer's text, space around it aside."""
    if tokenizer.is_lossless:
        return [False] * len(rows)
    texts = tokenizer.decode_batch(answers)
    wanted = [row.text[slice(*row.answer)].strip() for row in rows]
    # a token that prompt and answer share brings some of the prompt along
    return [not text.rstrip().endswith(answer) for text, answer in zip(texts, wanted, strict=True)]


def token_rows(
    rows: Sequence[RenderedRow],
    encodings: Sequence[Encoding],
    *,
    tokenizer: TextTokenizer,
    prompts: Sequence[Encoding | None] | None = None,
) -> list[TokenRow]:
    """Carry the spans of rendered rows over to the tokens of their texts.

    The tokenizer's own prefix (a BOS) is put before unless the text brings its special tokens or starts with it;
    the EOS, trained, is put after where the row asks for one and has none. Token 0 is nobody's target.

    `prompts` are the encodings of the rows' prompts alone. Where these are other tokens than those before the answer in
    the row, the row keeps them, and it is noted.
    """
    prefix, eos = tokenizer.prefix_ids, tokenizer.eos_token_id
    found = [_token_row(row, encoding, prefix, eos) for row, encoding in zip(rows, encodings, strict=True)]
    lossy = lossy_answers(rows, [row.ids[slice(*row.answer)] for row in found], tokenizer=tokenizer)
    found = [
        replace(row, is_lossy=True, notes=(LOSSY,)) if is_lossy else row
        for row, is_lossy in zip(found, lossy, strict=True)
    ]
    if prompts is None:
        return found
    together = zip(rows, found, encodings, prompts, strict=True)
    return [_with_asked(row, tokens, encoding, prompt, tokenizer) for row, tokens, encoding, prompt in together]


def _with_asked(
    row: RenderedRow, tokens: TokenRow, encoding: Encoding, prompt: Encoding | None, tokenizer: TextTokenizer
) -> TokenRow:
    """The row with the ids that its prompt has alone, where they are others than it begins with."""
    if prompt is None:
        return tokens
    asked = asked_ids(prompt.ids, tokenizer, has_specials=row.has_specials)
    if not asked or asked == tokens.ids[: tokens.answer[0]]:
        return tokens
    first = encoding.char_to_token(row.answer[0])
    characters = None if first is None else encoding.token_to_chars(first)
    is_shared = characters is not None and characters[0] < row.answer[0]
    return replace(tokens, asked=tuple(asked), notes=(*tokens.notes, SHARED_TOKEN if is_shared else OTHER_TOKENS))


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
