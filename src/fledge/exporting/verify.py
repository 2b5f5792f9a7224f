"""Compares what was exported with what was trained: logits, greedy text, and the bits of every tensor.

Shapes: T positions of one row, V ids.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from fledge.config.model import Dtype
from fledge.errors import ProofError
from fledge.exporting.behaviour import Behaviour
from fledge.models.tokenizer import Tokenizer


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
_PIECE = 1 << 24
LEAST_SLACK = 1e-5
"""Logits this close are tied in any number format: the order of sums alone moves them so far."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two sets of logits are apart."""

    max_abs: float
    relative: float
    """Largest difference, as a share of the largest logit."""
    mean_kl: float
    """In nats per position."""
    positions: int
    mean_abs: float = 0.0
    max_kl: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The numbers."""
        return asdict(self)


def tolerance_of(*dtypes: Dtype) -> Tolerance:
    """The widest of the tolerances of these number formats."""
    return widest(*(TOLERANCES[dtype] for dtype in dtypes))


def widest(*tolerances: Tolerance) -> Tolerance:
    """The one that allows the largest mean KL."""
    return max(tolerances, key=lambda tolerance: tolerance.mean_kl)


def distance(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> Distance:
    """How far `found` is from `expected`; infinite where a logit of either is not finite."""
    largest, scale, apart, values = 0.0, 1.0, 0.0, 0
    divergences: list[torch.Tensor] = []
    positions = sum(left.shape[0] for left in expected)
    for left, right in zip(expected, found, strict=True):
        if left.shape != right.shape or not _is_finite(left) or not _is_finite(right):
            return Distance(math.inf, math.inf, math.inf, positions, math.inf, math.inf)
        difference = (left - right).abs()
        largest, apart = max(largest, difference.max().item()), apart + difference.sum(dtype=torch.float64).item()
        scale, values = max(scale, left.abs().max().item()), values + left.numel()
        log_p, log_q = F.log_softmax(left.double(), dim=-1), F.log_softmax(right.double(), dim=-1)
        divergences.append((log_p.exp() * (log_p - log_q)).sum(dim=-1))
    kl = torch.cat([*divergences, torch.zeros(0, dtype=torch.float64)])
    mean_kl, max_kl = (kl.mean().item(), kl.max().item()) if kl.numel() else (0.0, 0.0)
    return Distance(
        max_abs=largest,
        relative=largest / scale,
        mean_kl=max(0.0, mean_kl),
        positions=positions,
        mean_abs=apart / max(1, values),
        max_kl=max(0.0, max_kl),
    )


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
    expected: Behaviour, answers: Sequence[Sequence[int]], *, stop_ids: frozenset[int], slack: float
) -> dict[str, Any]:
    """The figures for the certificate; `parted_at` has for each prompt where answers part, counted from 0, or None.

    Greedy answers must be the same. Where they part, the token taken must have been as likely as the likeliest one, as
    far as rounding can tell: within twice `slack`, the largest error of any logit. Raises ProofError elsewhere, and
    where the expected logits are not finite.
    """
    if not all(map(_is_finite, expected.answer_logits)):
        cure = "nothing was written; look at the losses of the training, or use --which best"
        raise ProofError("the trained model's own logits are not finite", cure=cure)
    parted_at: list[int | None] = []
    for place, (ours, theirs) in enumerate(zip(expected.answers, answers, strict=True)):
        parting = _parting(ours, theirs)
        parted_at.append(parting)
        if parting is None:
            continue
        logits = expected.answer_logits[place][parting]
        taken = [theirs[parting]] if parting < len(theirs) else sorted(stop_ids)
        gap = float(logits.max() - logits[taken].max()) if taken else math.inf
        if not gap <= 2 * slack:  # so that a gap that is no number fails too
            raise ProofError(
                f"the greedy answer to prompt {place + 1} differs at token {parting + 1}, by {gap:.3g} in logits",
                cure="nothing was written; export in float32",
            )
    same = parted_at.count(None)
    return {"prompts": len(parted_at), "same": same, "ties": len(parted_at) - same, "parted_at": parted_at}


def _parting(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The first place where two answers are not the same; None where they are."""
    if tuple(ours) == tuple(theirs):
        return None
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def check_tensors(written: Mapping[str, str], read: Mapping[str, str]) -> dict[str, Any]:
    """The figures for the certificate, from digests by name. Raises ProofError where a tensor that was read back is not
    the one written.
    """
    differing = sorted(name for name in written.keys() | read.keys() if written.get(name) != read.get(name))
    if differing:
        what = f"{len(differing)} tensors are not what was written: {', '.join(differing[:5])}"
        raise ProofError(what, cure="nothing was kept; look at the disk, and try again")
    return {"tensors": len(written), "differing": 0}


def digests_of(model: torch.nn.Module) -> dict[str, str]:
    """sha256 of each tensor of a model, by name: of number format, shape and bytes."""
    return {name: digest_of(tensor) for name, tensor in model.state_dict().items()}


def digest_of(tensor: torch.Tensor) -> str:
    """sha256 of number format, shape and bytes, read in pieces, for a tensor on a GPU must not be copied whole."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _PIECE):
        digest.update(flat[start : start + _PIECE].cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_stops(tokenizer: Tokenizer, found: frozenset[int]) -> dict[str, Any]:
    """The figures for the certificate. Raises ProofError where an answer would end on other tokens than it learnt."""
    expected, stops = tokenizer.stop_ids, sorted(found)
    if found != expected:
        what = f"the exported model stops on {stops}, the run on {sorted(expected)}"
        raise ProofError(what, cure="nothing was written; report this with the base's name")
    return {"eos_token_id": stops, "tokens": tokenizer.hf.convert_ids_to_tokens(stops)}
