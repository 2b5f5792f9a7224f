"""Compares what was exported with what was trained: logits, greedy text, and the bits of every tensor.

Shapes: T positions of one row, V ids.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from fledge.config.model import Dtype
from fledge.errors import ProofError

MAX_VALUES = 64_000_000
"""Logits that are held at once: 256 MB in float32."""

AnswerOf = Callable[[Any, Sequence[int]], Sequence[int]]
"""The greedy continuation of a prompt by a model, both as ids."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What both models are run on."""

    rows: tuple[tuple[int, ...], ...]
    prompts: tuple[tuple[int, ...], ...]
    stop_ids: frozenset[int]
    answer_of: AnswerOf


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a model does with a probe. Logits are float32 on the CPU."""

    logits: tuple[torch.Tensor, ...]
    """[T,V] of each row"""
    answers: tuple[tuple[int, ...], ...]
    answer_logits: tuple[torch.Tensor, ...]
    """[T,V] of each prompt with its answer, for the position before each answer token and after the last"""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far logits may be apart: what rounding to a number format can do, and no more."""

    relative: float
    """Largest difference of a logit, as a share of the largest logit."""
    mean_kl: float
    """Mean Kullback-Leibler divergence of the next-token distributions, in nats per position."""
    tie: float
    """How far a logit may be off where answers part, as a share of the largest logit: what rounding does as a rule."""


TOLERANCES: dict[Dtype, Tolerance] = {
    "float32": Tolerance(relative=1e-4, mean_kl=1e-7, tie=2e-5),
    "float16": Tolerance(relative=2e-2, mean_kl=1e-3, tie=5e-3),
    "bfloat16": Tolerance(relative=1e-1, mean_kl=1e-2, tie=4e-2),
}
LEAST_SLACK = 1e-5
"""Logits this close are tied in any number format: the order of sums alone moves them so far."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two sets of logits are apart."""

    max_abs: float
    relative: float
    mean_kl: float
    positions: int

    def as_json(self) -> dict[str, Any]:
        """The numbers."""
        return asdict(self)


def tolerance_of(*dtypes: Dtype) -> Tolerance:
    """The widest of the tolerances of these number formats."""
    return max((TOLERANCES[dtype] for dtype in dtypes), key=lambda tolerance: tolerance.mean_kl)


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


def measure(model: Any, probe: Probe) -> Behaviour:
    """Run a probe on a model in eval mode."""
    answers = tuple(tuple(probe.answer_of(model, prompt)) for prompt in probe.prompts)
    answer_logits = tuple(
        _answer_logits(model, prompt, answer) for prompt, answer in zip(probe.prompts, answers, strict=True)
    )
    return Behaviour(tuple(logits_of(model, row) for row in probe.rows), answers, answer_logits)


def distance(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> Distance:
    """How far `found` is from `expected`; infinite where a logit of either is not finite."""
    largest, scale, divergence, positions = 0.0, 1.0, 0.0, 0
    for left, right in zip(expected, found, strict=True):
        if left.shape != right.shape or not _is_finite(left) or not _is_finite(right):
            return Distance(math.inf, math.inf, math.inf, positions)
        largest = max(largest, (left - right).abs().max().item())
        scale = max(scale, left.abs().max().item())
        log_p, log_q = F.log_softmax(left.double(), dim=-1), F.log_softmax(right.double(), dim=-1)
        divergence += (log_p.exp() * (log_p - log_q)).sum().item()
        positions += left.shape[0]
    mean_kl = divergence / max(1, positions)
    return Distance(largest, largest / scale, 0.0 if mean_kl < 0 else mean_kl, positions)


def _is_finite(logits: torch.Tensor) -> bool:
    return bool(torch.isfinite(logits).all())


def check_distance(found: Distance, tolerance: Tolerance, *, of: str) -> dict[str, Any]:
    """The figures for the certificate. Raises ProofError where the logits are further apart than rounding explains."""
    figures = found.as_json() | {"tolerance": asdict(tolerance)}
    if not (found.relative <= tolerance.relative and found.mean_kl <= tolerance.mean_kl):
        raise ProofError(
            f"{of}: logits differ by {found.max_abs:.3g} at most ({found.relative:.2g} of the largest, "
            f"{tolerance.relative:.2g} allowed), mean KL {found.mean_kl:.3g} ({tolerance.mean_kl:.2g} allowed)",
            cure="nothing was written; export in float32, and report this with the certificate's numbers",
        )
    return figures


def slack_of(found: Distance, tolerance: Tolerance) -> float:
    """How far rounding may have moved a logit: as far as the rows' logits are apart, and never beyond `tie`.

    Without that bound a wrong model would excuse its own answers.
    """
    bound = tolerance.tie * found.max_abs / found.relative if found.relative > tolerance.tie else found.max_abs
    return max(bound, LEAST_SLACK)


def check_answers(
    expected: Behaviour, answers: Sequence[Sequence[int]], *, probe: Probe, slack: float
) -> dict[str, Any]:
    """The figures for the certificate.

    Greedy answers must be the same. Where they part, the token taken must have been as likely as the likeliest one, as
    far as rounding can tell: within twice `slack`, the largest error of any logit. Raises ProofError elsewhere, and
    where the expected logits are not finite.
    """
    if not all(map(_is_finite, expected.answer_logits)):
        cure = "nothing was written; look at the losses of the training, or use --which best"
        raise ProofError("the trained model's own logits are not finite", cure=cure)
    ties = 0
    for place, (ours, theirs) in enumerate(zip(expected.answers, answers, strict=True)):
        parting = _parting(ours, theirs)
        if parting is None:
            continue
        logits = expected.answer_logits[place][parting]
        taken = [theirs[parting]] if parting < len(theirs) else sorted(probe.stop_ids)
        gap = float(logits.max() - logits[taken].max()) if taken else math.inf
        if not gap <= 2 * slack:  # so that a gap that is no number fails too
            raise ProofError(
                f"the greedy answer to prompt {place + 1} differs at token {parting + 1}, by {gap:.3g} in logits",
                cure="nothing was written; export in float32",
            )
        ties += 1
    return {"prompts": len(expected.answers), "same": len(expected.answers) - ties, "ties": ties}


def _parting(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The first place where two answers are not the same; None where they are."""
    if tuple(ours) == tuple(theirs):
        return None
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def check_tensors(written: dict[str, torch.Tensor], read: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The figures for the certificate. Raises ProofError where a tensor that was read back is not the one written."""
    differing = sorted(written.keys() ^ read.keys())
    same = written.keys() & read.keys()
    differing += [name for name in sorted(same) if not torch.equal(written[name].cpu(), read[name].cpu())]
    if differing:
        what = f"{len(differing)} tensors are not what was written: {', '.join(differing[:5])}"
        raise ProofError(what, cure="nothing was kept; look at the disk, and try again")
    return {"tensors": len(written), "differing": 0}
