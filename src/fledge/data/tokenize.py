"""From rendered text to token ids and a mask, by character offsets."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Encoding(Protocol):
    """One tokenised text, as the tokenizers library returns it."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def offsets(self) -> list[tuple[int, int]]: ...
    def char_to_token(self, char_pos: int, sequence_index: int = 0) -> int | None: ...
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
    def special_tokens(self) -> Mapping[str, int]:
        """Every special or added token, text to id."""

    @property
    def has_chat_template(self) -> bool: ...
    def encode_batch(self, texts: Sequence[str]) -> Sequence[Encoding]:
        """Tokenise without adding special tokens; special tokens written in the text become their ids."""

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> str:
        """The chat template's text. Raises DataError with the template's own words where it refuses."""
