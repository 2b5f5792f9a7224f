"""Merges the adapter in float32, onto the weights that come closest to the model that was trained."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from fledge.adapters.merge import merge
from fledge.exporting.behaviour import Probe, logits_of
from fledge.exporting.trained import Learnt, Onto, Source
from fledge.exporting.verify import Distance, check_distance, distance, tolerance_of

Asked = Literal["auto", "dequantized", "full"]
CANDIDATES: tuple[Onto, ...] = ("full", "dequantized")
"""In the order they are measured: the one that wins as a rule comes last and need not be loaded again."""


@dataclass(frozen=True, slots=True)
class _Merged:
    model: Any
    logits: tuple[torch.Tensor, ...]
    figures: dict[str, Any]


def merge_closest(source: Source, learnt: Learnt, *, probe: Probe, asked: Asked) -> tuple[Any, dict[str, Any]]:
    """The merged model in float32, and the certificate's figures: `merge` and, of a quantised base, `choice`.

    A quantised base is merged onto what its numbers stand for, or onto the base as it came where that measures closer
    to the trained model, by the mean KL on the probe's rows; `asked` decides instead where it is not auto. One model
    is in memory at a time. Raises ProofError where merging itself changes a logit.
    """
    if not source.is_quantized:
        merged = _merge(source, "trained", probe)
        return merged.model, {"merge": merged.figures}
    found: dict[Onto, Distance] = {}
    latest: _Merged | None = None
    for onto in CANDIDATES:
        latest = None  # before the next one is loaded
        latest = _merge(source, onto, probe)
        found[onto] = distance(learnt.behaviour.logits, latest.logits)
    closest: Onto = "full" if found["full"].mean_kl < found["dequantized"].mean_kl else "dequantized"
    chosen = closest if asked == "auto" else asked
    if chosen != CANDIDATES[-1] or latest is None:
        latest = None
        latest = _merge(source, chosen, probe)
    measured = {onto: figures.as_json() for onto, figures in found.items()}
    return latest.model, {"merge": latest.figures, "choice": {"onto": chosen, "asked": asked, **measured}}


def _merge(source: Source, onto: Onto, probe: Probe) -> _Merged:
    model = source.load("float32", onto)
    before = [logits_of(model, row) for row in probe.rows]
    merged = merge(model)
    del model
    after = tuple(logits_of(merged, row) for row in probe.rows)
    figures = check_distance(distance(before, after), tolerance_of("float32"), of="merging")
    return _Merged(merged, after, figures)
