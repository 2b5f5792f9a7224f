"""Text from a model: greedy or sampled, many prompts at once or one prompt token by token."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fledge.errors import FledgeError
from fledge.evaluation.mode import evaluating

MAX_ROWS, MAX_TOKENS = 64, 16_384
"""Rows, and positions with padding and answers, of one batch."""


class Vocabulary(Protocol):
    """What generation needs of a tokenizer."""

    @property
    def pad_token_id(self) -> int: ...
    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids after which an answer is complete."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Nothing of the model's own generation_config has a say in it."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    """0 takes the likeliest token; above 0 tokens are drawn."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability are drawn (arXiv 1904.09751)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise FledgeError(f"max_new_tokens is {self.max_new_tokens}", cure="use 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise FledgeError(f"temperature is {self.temperature}", cure="use 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise FledgeError(f"top_p is {self.top_p}", cure="use a number above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote. `is_complete` says that a stop token ended it, which is in neither `ids` nor `text`."""

    ids: tuple[int, ...]
    text: str
    is_complete: bool


def generate(
    model: Any,
    vocabulary: Vocabulary,
    *,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    max_positions: int | None = None,
) -> list[Answer]:
    """One answer for each prompt (token ids), in the order of the prompts.

    Prompts of like length are computed together, padded on the left; in float32 the greedy answers are those of the
    prompts alone. The same seed and prompts give the same answers. `max_positions` is the longest row that the model
    has positions for. Raises FledgeError for a prompt without tokens or without room for an answer.
    """
    for index, prompt in enumerate(prompts):
        _check(prompt, max_positions, where=f"prompt {index + 1}" if len(prompts) > 1 else "")
    answers: dict[int, Answer] = {}
    with evaluating(model), _seeded(model, sampling.seed):
        for chosen in _groups([len(prompt) for prompt in prompts], sampling.max_new_tokens, max_positions):
            rows = _run(model, vocabulary, [prompts[index] for index in chosen], sampling, max_positions)
            answers |= {index: _answer(row, vocabulary) for index, row in zip(chosen, rows, strict=True)}
    return [answers[index] for index in range(len(prompts))]


def stream(
    model: Any,
    vocabulary: Vocabulary,
    *,
    prompt: Sequence[int],
    sampling: Sampling,
    on_text: Callable[[str], None],
    max_positions: int | None = None,
) -> Answer:
    """The answer that `generate` gives for this prompt alone; `on_text` gets each piece of it as it is written.

    The pieces put together are the answer's text.
    """
    _check(prompt, max_positions, where="")
    pieces = _Pieces(vocabulary, on_text)
    with evaluating(model), _seeded(model, sampling.seed):
        rows = _run(model, vocabulary, [prompt], sampling, max_positions, streamer=pieces)
    answer = _answer(rows[0], vocabulary)
    pieces.finish(answer.text)
    return answer


def _check(prompt: Sequence[int], max_positions: int | None, *, where: str) -> None:
    if not prompt:
        raise FledgeError("the prompt has no tokens", where=where, cure="give some text to go on from")
    if max_positions is not None and len(prompt) >= max_positions:
        what = f"the prompt has {len(prompt)} tokens and this base has positions for {max_positions}"
        raise FledgeError(what, where=where, cure="shorten the prompt")


def _groups(lengths: Sequence[int], max_new_tokens: int, max_positions: int | None) -> Iterator[list[int]]:
    """Places of prompts, those of like length together, within the limits of one batch.

    Prompts that leave too little room for a whole answer share a batch only with others of their own length.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        width = lengths[index] + max_new_tokens
        is_full = len(group) == MAX_ROWS or (len(group) + 1) * width > MAX_TOKENS
        is_cramped = max_positions is not None and width > max_positions
        if group and (is_full or (is_cramped and lengths[index] != lengths[group[0]])):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _run(
    model: Any,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    max_positions: int | None,
    streamer: "_Pieces | None" = None,
) -> list[list[int]]:
    """New ids of each prompt, stop token and what follows it included."""
    width = max(len(prompt) for prompt in prompts)
    pads = [[vocabulary.pad_token_id] * (width - len(prompt)) for prompt in prompts]
    ids = torch.tensor([[*pad, *prompt] for pad, prompt in zip(pads, prompts, strict=True)])
    mask = torch.tensor([[0] * len(pad) + [1] * (width - len(pad)) for pad in pads])
    # The library reads what a call leaves open from the model's generation_config, an adapter's wrapper from its own.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, settings = inner.generation_config, type(inner.generation_config)()
    room = sampling.max_new_tokens if max_positions is None else min(sampling.max_new_tokens, max_positions - width)
    settings.update(**_settings(sampling, vocabulary, room))
    inner.generation_config = settings
    try:
        made = inner.generate(
            input_ids=ids.to(inner.device),
            attention_mask=mask.to(inner.device),
            generation_config=settings,
            streamer=streamer,
        )
    finally:
        inner.generation_config = own
    return [row[width:] for row in made.tolist()]


def _settings(sampling: Sampling, vocabulary: Vocabulary, max_new_tokens: int) -> dict[str, Any]:
    """Everything that decides the text, in transformers' words."""
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "do_sample": sampling.temperature > 0,
        "num_beams": 1,
        "use_cache": True,
        "eos_token_id": sorted(vocabulary.stop_ids) or None,
        "pad_token_id": vocabulary.pad_token_id,
    }
    if sampling.temperature > 0:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return settings


@contextlib.contextmanager
def _seeded(model: torch.nn.Module, seed: int) -> Iterator[None]:
    """Within this block random numbers come from `seed`; afterwards the generators go on as if nothing was drawn."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _answer(row: Sequence[int], vocabulary: Vocabulary) -> Answer:
    end = next((place for place, token in enumerate(row) if token in vocabulary.stop_ids), len(row))
    ids = tuple(row[:end])
    return Answer(ids, vocabulary.decode(ids), is_complete=end < len(row))


class _Pieces:
    """Told of each token by the library, tells text as soon as no later token can change it."""

    def __init__(self, vocabulary: Vocabulary, on_text: Callable[[str], None]) -> None:
        self._vocabulary, self._on_text = vocabulary, on_text
        self._ids: list[int] = []
        self._told = ""
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self._is_prompt:
            self._is_prompt = False
            return
        fresh = value.reshape(-1).tolist()
        if any(token in self._vocabulary.stop_ids for token in fresh):
            return
        self._ids += fresh
        text = self._vocabulary.decode(self._ids)
        if not text.endswith("\ufffd"):  # the bytes of a character that is not complete yet
            self._tell(text)

    def end(self) -> None:
        pass

    def finish(self, text: str) -> None:
        self._tell(text)

    def _tell(self, text: str) -> None:
        if text.startswith(self._told) and text != self._told:
            self._on_text(text[len(self._told) :])
            self._told = text
