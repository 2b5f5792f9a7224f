"""Text from a model: greedy, by beams or sampled, many prompts at once or one prompt token by token."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer

from fledge.errors import FledgeError
from fledge.evaluation.batching import Batches, bytes_at_hand, footprint
from fledge.evaluation.mode import evaluating
from fledge.evaluation.streaming import TextStream

OnAnswers = Callable[[int, int], None]
"""Told how many answers are written, and of how many."""


def ignore_answers(done: int, total: int) -> None:
    """Nobody is told."""


class Vocabulary(Protocol):
    """What generation, and reading what was generated, need of a tokenizer."""

    @property
    def backend(self) -> Tokenizer:
        """The library's tokenizer."""

    @property
    def pad_token_id(self) -> int: ...
    @property
    def unk_token_id(self) -> int | None:
        """The id that stands for characters which the tokenizer cannot write."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids after which an answer is complete."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""

    def decode_whole(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens among it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Nothing of the model's own generation_config has a say in it."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    """0 takes the likeliest token; above 0 tokens are drawn."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability are drawn (arXiv 1904.09751)."""
    seed: int = 0
    num_beams: int = 1
    """Above 1 the likeliest answer that a search keeping this many beginnings finds, by mean log-probability."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise FledgeError(f"max_new_tokens is {self.max_new_tokens}", cure="use 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise FledgeError(f"temperature is {self.temperature}", cure="use 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise FledgeError(f"top_p is {self.top_p}", cure="use a number above 0 and at most 1")
        if self.num_beams < 1:
            raise FledgeError(f"num_beams is {self.num_beams}", cure="use 1 (greedy) or more")
        if self.num_beams > 1 and self.temperature > 0:
            raise FledgeError("beams are not drawn", where="temperature", cure="use temperature 0, or one beam")


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
    on_answers: OnAnswers = ignore_answers,
) -> list[Answer]:
    """One answer for each prompt (token ids), in the order of the prompts.

    Prompts of like length are computed together, as many as fit into memory, the longest first; in float32 the greedy
    answers are those of the prompts alone. The same seed, prompts and batches give the same answers. The prompts of an
    encoder-decoder are what its encoder reads, whole. `max_positions` is the longest row that the model has positions
    for. Where a GPU's memory runs out all the same, the batch is halved. Raises FledgeError for a prompt without
    tokens or without room for an answer, and where memory does not suffice for one prompt alone.
    """
    for index, prompt in enumerate(prompts):
        _check(model, prompt, max_positions, where=f"prompt {index + 1}" if len(prompts) > 1 else "")
    answers: dict[int, Answer] = {}
    with evaluating(model), _seeded(model, sampling.seed):
        batches = _batches(model, prompts, sampling, max_positions)
        for chosen in batches:
            rows = _fitting(model, vocabulary, [prompts[index] for index in chosen], sampling, max_positions)
            if rows is None:
                batches.halve(chosen)
                continue
            answers |= {index: _answer(row, vocabulary) for index, row in zip(chosen, rows, strict=True)}
            on_answers(len(answers), len(prompts))
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

    The pieces put together are the answer's text; a character is told as soon as no later token can change it. Raises
    FledgeError as `generate` does, and for beams: which of them is the answer is known at the end only.
    """
    _check(model, prompt, max_positions, where="")
    if sampling.num_beams > 1:
        raise FledgeError("beams cannot be streamed", where="num_beams", cure="use one beam")
    shown = _Shown(vocabulary, on_text)
    with evaluating(model), _seeded(model, sampling.seed):
        rows = _run(model, vocabulary, [prompt], sampling, max_positions, streamer=shown)
    shown.finish()
    return _answer(rows[0], vocabulary)


def _check(model: Any, prompt: Sequence[int], max_positions: int | None, *, where: str) -> None:
    if not prompt:
        raise FledgeError("the prompt has no tokens", where=where, cure="give some text to go on from")
    size = _inner(model).get_input_embeddings().weight.shape[0]
    if max(prompt) >= size:
        what = f"the prompt has the token {max(prompt)}, and this base has embeddings for {size} tokens"
        raise FledgeError(what, where=where, cure="use the tokenizer that belongs to the base")
    # a decoder with an encoder of its own begins anew, so that the prompt takes none of its positions
    room = 0 if model.config.is_encoder_decoder else 1
    if max_positions is not None and len(prompt) + room > max_positions:
        what = f"the prompt has {len(prompt)} tokens and this base has positions for {max_positions}"
        raise FledgeError(what, where=where, cure="shorten the prompt")


def _batches(model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, max_positions: int | None) -> Batches:
    inner = _inner(model)
    return Batches(
        lengths=[len(prompt) for prompt in prompts],
        footprint=footprint(inner),
        max_new_tokens=sampling.max_new_tokens,
        num_beams=sampling.num_beams,
        max_positions=max_positions,
        limit_bytes=bytes_at_hand(inner.device),
    )


def _inner(model: Any) -> Any:
    """The model itself where an adapter's wrapper is around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _fitting(
    model: Any,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    max_positions: int | None,
) -> list[list[int]] | None:
    """New ids of each prompt; None where the memory of a GPU does not suffice for several prompts at once."""
    try:
        return _run(model, vocabulary, prompts, sampling, max_positions)
    except torch.OutOfMemoryError as error:
        if len(prompts) == 1:
            what = f"there is not enough memory to answer a prompt of {len(prompts[0])} tokens, even alone"
            raise FledgeError(what, cure="lower max_new_tokens or num_beams, or shorten the prompt") from error
    # only here has the error let go of what the failed batch held
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _run(
    model: Any,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    max_positions: int | None,
    streamer: "_Shown | None" = None,
) -> list[list[int]]:
    """New ids of each prompt, stop token and what follows it included."""
    # The library reads what a call leaves open from the model's generation_config, an adapter's wrapper from its own.
    inner = _inner(model)
    is_pair = inner.config.is_encoder_decoder
    ids, mask = _padded(prompts, vocabulary.pad_token_id, on_the_right=is_pair)
    taken = 0 if is_pair else ids.shape[1]
    own, settings = inner.generation_config, type(inner.generation_config)()
    room = sampling.max_new_tokens if max_positions is None else min(sampling.max_new_tokens, max_positions - taken)
    settings.update(**_settings(sampling, vocabulary, room))
    if is_pair:
        settings.update(decoder_start_token_id=_decoder_start(inner))
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
    begin = 1 if is_pair else taken  # what the decoder started with is no part of the answer
    return [row[begin:] for row in made.tolist()]


def _padded(prompts: Sequence[Sequence[int]], pad: int, *, on_the_right: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, longest] ids and mask: a causal model goes on from the right edge, an encoder begins at the left one."""
    width = max(len(prompt) for prompt in prompts)
    rows, masks = [], []
    for prompt in prompts:
        pads, ones = [pad] * (width - len(prompt)), [1] * len(prompt)
        zeros = [0] * len(pads)
        rows.append([*prompt, *pads] if on_the_right else [*pads, *prompt])
        masks.append([*ones, *zeros] if on_the_right else [*zeros, *ones])
    return torch.tensor(rows), torch.tensor(masks)


def _decoder_start(model: Any) -> int:
    """What the decoder starts with. T5 has no BOS: where its config does not say, it is the padding token."""
    names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
    found = (getattr(model.config, name, None) for name in names)
    return next(int(token) for token in found if token is not None)


def _settings(sampling: Sampling, vocabulary: Vocabulary, max_new_tokens: int) -> dict[str, Any]:
    """Everything that decides the text, in transformers' words."""
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "do_sample": sampling.temperature > 0,
        "num_beams": sampling.num_beams,
        "use_cache": True,
        "eos_token_id": sorted(vocabulary.stop_ids) or None,
        "pad_token_id": vocabulary.pad_token_id,
    }
    if sampling.temperature > 0:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    if sampling.num_beams > 1:
        settings |= {"length_penalty": 1.0, "early_stopping": False}
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


class _Shown:
    """Told of each token by the library, tells text as soon as no later token can change it."""

    def __init__(self, vocabulary: Vocabulary, on_text: Callable[[str], None]) -> None:
        self._stop_ids, self._on_text = vocabulary.stop_ids, on_text
        self._text = TextStream(vocabulary)
        self._is_prompt, self._is_over = True, False

    def put(self, value: torch.Tensor) -> None:
        if self._is_prompt:
            self._is_prompt = False
            return
        for token in value.reshape(-1).tolist():
            self._is_over = self._is_over or token in self._stop_ids
            self._tell("" if self._is_over else self._text.push(token))

    def end(self) -> None:
        """The library is done. What was waiting is told by `finish`, where no error can come between."""

    def finish(self) -> None:
        self._tell(self._text.end())

    def _tell(self, text: str) -> None:
        if text:
            self._on_text(text)
