"""What a model does with rows and prompts: the logits and the greedy answers that exports are compared on.

Shapes: T positions of one row, V ids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

MAX_VALUES = 64_000_000
"""Logits that are held at once: 256 MB in float32."""

AnswersOf = Callable[[Any, Sequence[Sequence[int]]], Sequence[Sequence[int]]]
"""The greedy continuations of prompts by a model, computed together, all as ids."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What both models are run on."""

    rows: tuple[tuple[int, ...], ...]
    prompts: tuple[tuple[int, ...], ...]
    answers_of: AnswersOf
    max_new_tokens: int
    """Of an answer of `answers_of`."""
    origin: str
    """Where rows and prompts come from, for people: validation rows as a rule."""
    samples: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Texts of the training's own rows, each with its ids then; none where the data are gone."""
    special: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Texts with the tokenizer's special tokens, each with its ids."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a model does with a probe. Logits are float32 on the CPU."""

    logits: tuple[torch.Tensor, ...]
    """[T,V] of each row"""
    answers: tuple[tuple[int, ...], ...]
    answer_logits: tuple[torch.Tensor, ...]
    """[T,V] of each prompt with its answer, for the position before each answer token and after the last"""


def fit_rows(rows: Sequence[Sequence[int]], *, vocab_size: int) -> tuple[tuple[int, ...], ...]:
    """Rows cut so that all their logits together stay within MAX_VALUES."""
    most = max(2, MAX_VALUES // (vocab_size * max(1, len(rows))))
    return tuple(tuple(row[:most]) for row in rows)


def logits_of(model: Any, row: Sequence[int]) -> torch.Tensor:
    """The model's logits of one row alone, float32, on the CPU. [T,V] An encoder-decoder reads it on both sides."""
    return _logits(model, row, written=row)


def _logits(model: Any, read: Sequence[int], *, written: Sequence[int]) -> torch.Tensor:
    """[T,V] of what is read; of an encoder-decoder those of what its decoder has written so far."""
    device = next(model.parameters()).device
    inputs = {"input_ids": torch.tensor([read], device=device)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([written], device=device)
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[0].float().cpu()


def _answer_logits(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """[T+1,V] that each of the T tokens of an answer was chosen from, and what would follow."""
    if model.config.is_encoder_decoder:
        return _logits(model, prompt, written=(model.config.decoder_start_token_id, *answer))
    return logits_of(model, (*prompt, *answer))[len(prompt) - 1 :]


def measure(model: Any, probe: Probe, *, is_large: bool = False) -> Behaviour:
    """Run a probe on a model in eval mode; of a large one rows, and prompts, are computed together."""
    if is_large:
        return _measure_together(model, probe)
    answers = tuple(tuple(probe.answers_of(model, [prompt])[0]) for prompt in probe.prompts)
    answer_logits = tuple(
        _answer_logits(model, prompt, answer) for prompt, answer in zip(probe.prompts, answers, strict=True)
    )
    return Behaviour(tuple(logits_of(model, row) for row in probe.rows), answers, answer_logits)


def _measure_together(model: Any, probe: Probe) -> Behaviour:
    """The same with few passes through the model. An encoder-decoder's answers are read one by one."""
    answers = tuple(map(tuple, probe.answers_of(model, probe.prompts)))
    pairs = list(zip(probe.prompts, answers, strict=True))
    if model.config.is_encoder_decoder:
        answer_logits = tuple(_answer_logits(model, prompt, answer) for prompt, answer in pairs)
        return Behaviour(batch_logits(model, probe.rows), answers, answer_logits)
    found = batch_logits(model, [*probe.rows, *((*prompt, *answer) for prompt, answer in pairs)])
    count = len(probe.rows)
    answer_logits = tuple(each[len(prompt) - 1 :] for each, prompt in zip(found[count:], probe.prompts, strict=True))
    return Behaviour(found[:count], answers, answer_logits)


def batch_logits(model: Any, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """Float32 logits [T,V] of each row, on the CPU, computed together so that each weight is made whole once.

    Rows are padded at their end, where no position of theirs sees it. An encoder-decoder reads each on both sides.
    """
    longest, device = max(map(len, rows)), next(model.parameters()).device
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
    return tuple(each[: len(row)].float().cpu() for each, row in zip(logits, rows, strict=True))
