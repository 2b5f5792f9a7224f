"""Which prompts are answered together: the longest first, no more at once than fit into the memory at hand."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fledge.runtime.memory import available_bytes

MAX_ROWS = 64
"""Prompts of one batch; more of them gain nothing, for the longest answer keeps all of them waiting."""
MEMORY_SHARE = 0.6
"""Of the memory at hand, what one batch may be estimated to take."""
_GROWTH = 2
"""A layer's cache is copied as it grows and as beams change places, and not every hole that this leaves is filled."""
_WIDE, _SCORES, _LOGITS = 4, 3, 4
"""Copies that are there at once while a prompt is read, of its attention scores, and of a token's logits."""
_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one row takes while its answer is written, in bytes, estimated from above.

    The two caches of an encoder-decoder differ: the decoder's own grows with the answer, the one over the source is as
    long as the source. In a causal model prompt and answer lie in one cache.
    """

    is_encoder_decoder: bool
    per_cached: int
    """Of a position in the decoder's own cache, over all layers."""
    per_source: int
    """Of a position of the source, for each beam: the cache over it and the encoder's output; 0 in a causal model."""
    per_read: int
    """Of a position of the prompt while it is read: what one block computes."""
    per_pair: int
    """Of two positions of the prompt: attention's scores, or its mask."""
    per_token: int
    """Of a token that is chosen: its logits and what is made of them."""

    def row_bytes(self, length: int, max_new_tokens: int, *, num_beams: int = 1) -> int:
        """Bytes of a row with a prompt of `length` tokens, padding included."""
        reading = length * self.per_read + length * length * self.per_pair
        answer = max_new_tokens * self.per_cached * _GROWTH + self.per_token
        if self.is_encoder_decoder:  # the source is read once, whatever the number of beams
            return reading + num_beams * (length * self.per_source * _GROWTH + answer)
        return num_beams * (reading + length * self.per_cached * _GROWTH + answer)


def footprint(model: Any) -> Footprint:
    """Footprint of a transformers model. What a position takes in the caches is not computed but measured, on one
    token: layers, heads shared between queries and number format are then as the model has them.
    """
    config = model.config.get_text_config()
    heads, hidden, vocabulary = getattr(config, "num_attention_heads", 1), config.hidden_size, config.vocab_size
    widths = (getattr(module, "out_features", 0) for module in model.modules())
    widest = max((width for width in widths if width < vocabulary), default=4 * hidden)
    has_scores = config._attn_implementation not in ("sdpa", "flash_attention_2", "flash_attention_3")
    is_pair = bool(config.is_encoder_decoder)
    own, across = _cache_bytes(model, is_pair=is_pair)
    return Footprint(
        is_encoder_decoder=is_pair,
        per_cached=own,
        per_source=across + hidden * _FLOAT32 if is_pair else 0,
        per_read=_FLOAT32 * _WIDE * (2 * hidden + max(widest, 4 * hidden)),
        # T5 adds a bias of each head to its mask
        per_pair=_FLOAT32 * (_SCORES * heads if has_scores else heads if is_pair else 1),
        per_token=_FLOAT32 * _LOGITS * vocabulary,
    )


def _cache_bytes(model: Any, *, is_pair: bool) -> tuple[int, int]:
    """Bytes of one position in the decoder's own cache and in the one over the source, which a causal model lacks."""
    one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    if not is_pair:
        return _tensor_bytes(_cache(model(input_ids=one, use_cache=True))), 0
    caches = _cache(model(input_ids=one, decoder_input_ids=one, use_cache=True))
    return _tensor_bytes(caches.self_attention_cache), _tensor_bytes(caches.cross_attention_cache)


def _cache(output: Any) -> Any:
    """Of a model's output. Its name changed within transformers 5."""
    return output["cache" if "cache" in output else "past_key_values"]


def _tensor_bytes(cache: Any) -> int:
    layers = cache.layers if cache is not None else ()
    values = (value for layer in layers for value in vars(layer).values())
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))


def bytes_at_hand(device: torch.device) -> float:
    """What one batch may take. On a GPU what torch holds without using it counts too."""
    free = available_bytes(device)
    if device.type == "cuda":
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return MEMORY_SHARE * free


@dataclass(slots=True)
class Batches:
    """Prompts in batches, the longest first, so that a lack of memory shows at once and not after hours.

    `lengths` are tokens of each prompt. A batch of prompts is at most `limit_bytes` by its footprint, or a single
    prompt. The number of rows that memory allows is rounded down to a power of two, so that it seldom changes with
    the little by which free memory differs from one hour to the next.
    """

    lengths: Sequence[int]
    footprint: Footprint
    max_new_tokens: int
    num_beams: int
    max_positions: int | None
    limit_bytes: float

    def __iter__(self) -> Iterator[list[int]]:
        """Places of the prompts of each batch. A batch that did not fit is given again, in parts; see `halve`."""
        waiting = sorted(range(len(self.lengths)), key=lambda place: -self.lengths[place])
        while waiting:
            before = self.limit_bytes
            chosen = waiting[: self._size(waiting)]
            yield chosen
            if self.limit_bytes == before:
                waiting = waiting[len(chosen) :]

    def halve(self, chosen: Sequence[int]) -> None:
        """Say that the batch `chosen`, just given, did not fit: it and all that come after may have half its bytes."""
        assert len(chosen) > 1, "a single prompt cannot be halved"
        self.limit_bytes = self._row_bytes(chosen[0]) * (len(chosen) / 2)

    def _size(self, waiting: Sequence[int]) -> int:
        allowed = int(self.limit_bytes // self._row_bytes(waiting[0]))
        most = min(MAX_ROWS, 2 ** int(math.log2(allowed)) if allowed > 1 else 1)
        longest = self.lengths[waiting[0]]
        if not self._is_cramped(longest):
            return min(most, len(waiting))
        # too little room for a whole answer: padding would take of the room of shorter prompts
        like = next((n for n, place in enumerate(waiting) if self.lengths[place] != longest), len(waiting))
        return min(most, like)

    def _is_cramped(self, length: int) -> bool:
        if self.max_positions is None or self.footprint.is_encoder_decoder:
            return False
        return length + self.max_new_tokens > self.max_positions

    def _row_bytes(self, place: int) -> int:
        return self.footprint.row_bytes(self.lengths[place], self.max_new_tokens, num_beams=self.num_beams)
