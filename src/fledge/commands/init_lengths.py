"""How long the rows are that `fledge init` writes a recipe for, and the lengths that keep them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fledge.config.data import DataConfig
from fledge.data.pairs import Pairs
from fledge.data.rows import RenderedRow
from fledge.data.tokenize import encode_texts
from fledge.data.whole import Whole
from fledge.models.tokenizer import Tokenizer

_LENGTHS = (512, 1024, 2048, 4096, 8192)
_TARGETS = (128, 256, 512, 1024)
_PIECE = 2048
"""Tokens of a piece into which longer plain texts are split."""
_STEP = 256


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths to write, and what is to be said of rows that are longer."""

    max_length: int
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of the data section."""
    remarks: tuple[str, ...] = ()


def lengths_for(rows: Sequence[RenderedRow], config: DataConfig, *, tokenizer: Tokenizer, most: int | None) -> Lengths:
    """The shortest usual lengths that all of the rows fit into, never beyond the base's `most` positions.

    Rows longer than any usual length get one of their own. Plain text that is long is split into pieces instead.
    """
    sizes = _sizes(rows, config, tokenizer=tokenizer)
    if tokenizer.decoder_start_id is not None:
        sources, targets = [size[0] for size in sizes], [size[1] for size in sizes]
        max_length, max_target = _fitting(sources, _LENGTHS, most=most), _fitting(targets, _TARGETS, most=most)
        remarks = (*_longer(sources, max_length), *_longer(targets, max_target, key="data.max_target_length"))
        return Lengths(max_length, {"max_target_length": max_target}, remarks)
    wholes = [size[0] for size in sizes]
    piece = _PIECE if most is None else min(_PIECE, most)
    if getattr(config.train, "format", None) == "text" and max(wholes, default=0) > piece:
        count = sum(size > piece for size in wholes)
        told = f"{count:,} of {len(wholes):,} texts are longer than data.max_length ({piece:,} tokens); data.overlong: "
        return Lengths(piece, {"overlong": "split"}, (told + "split trains all of their tokens, in pieces",))
    max_length = _fitting(wholes, _LENGTHS, most=most)
    return Lengths(max_length, {}, _longer(wholes, max_length))


def _sizes(rows: Sequence[RenderedRow], config: DataConfig, *, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Tokens of each row as training counts them: of an encoder-decoder those of the source and of the target."""
    maker = (Pairs if tokenizer.decoder_start_id is not None else Whole)(tokenizer, config, "drop")
    texts = [maker.texts(row) for row in rows]
    found = iter(encode_texts(tokenizer, [text for row in texts for text in row]))
    encodings = [tuple(itertools.islice(found, len(row))) for row in texts]
    return [maker.sizes(row) for row in maker.token_rows(rows, encodings)]


def _fitting(sizes: Sequence[int], usual: Sequence[int], *, most: int | None) -> int:
    longest = max(sizes, default=0)
    length = next((length for length in usual if longest <= length), -(-longest // _STEP) * _STEP)
    return length if most is None else min(length, most)


def _longer(sizes: Sequence[int], limit: int, *, key: str = "data.max_length") -> tuple[str, ...]:
    """What is said of rows that the base has no positions for."""
    count = sum(size > limit for size in sizes)
    if not count:
        return ()
    told = f"{count:,} of {len(sizes):,} rows are longer than {key}, {limit:,} tokens, for which the base has positions"
    return (f"{told}; they are dropped and counted, or cut where data.overlong is truncate",)
