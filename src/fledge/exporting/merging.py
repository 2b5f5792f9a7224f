"""Merges the adapter in float32, onto the weights that come closest to the model that was trained."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from fledge.config.model import Dtype
from fledge.exporting.behaviour import Probe, batch_logits, logits_of
from fledge.exporting.merged import Base, Merged, merged_onto, outline_of
from fledge.exporting.streamed import is_streamed, streamed
from fledge.exporting.trained import Learnt, Onto, Source
from fledge.exporting.verify import Distance, check_distance, distance, tolerance_of
from fledge.models.outline import Outline
from fledge.runtime.memory import available_bytes
from fledge.runtime.precision import TORCH_DTYPES

Asked = Literal["auto", "dequantized", "full"]
CANDIDATES: tuple[Base, ...] = ("full", "dequantized")
"""In the order they are measured: the one that wins as a rule comes last and need not be read again."""
_BASES: dict[Onto, str] = {
    "trained": "the base",
    "dequantized": "the dequantised base",
    "full": "the base in full precision",
}
MORE = 1.2
"""Of a model's own bytes, what it takes in memory with what computes it."""


@dataclass(frozen=True, slots=True)
class Closest:
    """What is exported."""

    merged: Merged
    checks: dict[str, Any]
    """The certificate's `merge` and, of a quantised base, `choice`."""
    has_room: bool
    """Whether the model in float32 has room in memory."""


@dataclass(frozen=True, slots=True)
class _Measured:
    logits: tuple[torch.Tensor, ...]
    figures: dict[str, Any] | None
    """The certificate's `merge`, where it was measured on logits."""


def merge_closest(source: Source, learnt: Learnt, *, probe: Probe, asked: Asked, dtype: Dtype) -> Closest:
    """The merged model, tensor by tensor, and what was measured.

    Where the model in float32 has room in memory, its logits before and after merging are compared; where not, each
    layer's products are. A quantised base is merged onto what its numbers stand for, or onto the base as it came where
    that measures closer to the trained model, by the mean KL on the probe's rows: in float32, or where that has no
    room in `dtype`; `asked` decides instead where it is not auto. One model is in memory at a time, and none after it.
    Raises ProofError where merging itself changes what the model computes.
    """
    outline, updates = outline_of(source)
    device = torch.device(learnt.device)
    has_room = fits(outline, "float32", device=device)
    if not source.is_quantized:
        merged = merged_onto(source, "full", outline=outline, updates=updates)
        figures = _measure(source, "trained", merged, probe=probe, device=device).figures if has_room else None
        return Closest(merged, {"merge": figures or merged.check_layers()}, has_room)
    found: dict[Base, Distance] = {}
    merges: dict[Base, dict[str, Any] | None] = {}
    latest: Merged | None = None
    for base in CANDIDATES:
        latest = None  # before the next one is loaded
        latest = merged_onto(source, base, outline=outline, updates=updates)
        measured = _measure(source, base, latest, probe=probe, device=device, dtype=None if has_room else dtype)
        found[base], merges[base] = distance(learnt.behaviour.logits, measured.logits), measured.figures
        del measured
    closest: Base = "full" if found["full"].mean_kl < found["dequantized"].mean_kl else "dequantized"
    chosen = closest if asked == "auto" else asked
    if chosen != CANDIDATES[-1] or latest is None:
        latest = None
        latest = merged_onto(source, chosen, outline=outline, updates=updates)
    choice: dict[str, Any] = {"onto": chosen, "asked": asked, "in": "float32" if has_room else dtype}
    choice |= {base: figures.as_json() for base, figures in found.items()}
    return Closest(latest, {"merge": merges[chosen] or latest.check_layers(), "choice": choice}, has_room)


def _measure(
    source: Source, onto: Onto, merged: Merged, *, probe: Probe, device: torch.device, dtype: Dtype | None = None
) -> _Measured:
    """The merged model's logits of the probe's rows: in float32, held against those before merging, or in `dtype`."""
    before = None if dtype else _logits(source.load("float32", onto), probe)
    source.say(f"merging the adapter into {_BASES[onto]}, in {dtype or 'float32'}, and measuring it")
    if dtype is not None and is_streamed(merged.outline, device=device):
        with streamed(merged, dtype) as model:
            return _Measured(batch_logits(model, probe.rows), None)
    model = merged.model(dtype or "float32")
    after = _logits(model.to(device) if fits(merged.outline, dtype or "float32", device=device) else model, probe)
    if before is None:
        return _Measured(after, None)
    figures = check_distance(distance(before, after), tolerance_of("float32"), of="merging")
    return _Measured(after, {"how": "logits"} | figures)


def _logits(model: Any, probe: Probe) -> tuple[torch.Tensor, ...]:
    return tuple(logits_of(model, row) for row in probe.rows)


def fits(outline: Outline, dtype: Dtype, *, device: torch.device) -> bool:
    """Whether the model in a number format has room where it computes and in host memory, where it is made."""
    values = sum(parameter.numel() for parameter in outline.model.parameters())
    room = min(available_bytes(each) for each in {device, torch.device("cpu")})
    return MORE * values * TORCH_DTYPES[dtype].itemsize <= room
