"""The trained model as exports are held against it: loaded, measured and let go, one model at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fledge.config.model import Dtype, ModelConfig
from fledge.errors import ProofError
from fledge.exporting.behaviour import Behaviour, Probe, batch_logits, logits_of, measure
from fledge.exporting.large import is_large
from fledge.exporting.verify import distance
from fledge.models.facts import num_weights
from fledge.models.tokenizer import Tokenizer

Onto = Literal["trained", "dequantized", "full"]
"""What the adapter lies on: the base as the recipe holds it; what a quantised base stands for; the base as it came."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported. `load` gives the base in a number format with the adapter on it, in eval mode."""

    base: ModelConfig
    adapter: Path
    tokenizer: Tokenizer
    load: Callable[[Dtype, Onto], Any]
    about: dict[str, Any]
    """What the certificate says of the run."""
    remarks: tuple[str, ...] = ()
    """What else a person should know who reads it."""
    say: Callable[[str], None] = lambda line: None
    """Told a line for each part of the work that begins."""

    @property
    def base_name(self) -> str:
        """What the base is called for others, which need not be where it is loaded from."""
        return str(self.about["base"]["name"])

    @property
    def is_quantized(self) -> bool:
        """Whether the base was trained on in fewer bits than it came in."""
        return self.base.quantization != "none"


@dataclass(frozen=True, slots=True)
class Learnt:
    """What the trained model does, in the number format of the training."""

    behaviour: Behaviour
    effect: dict[str, Any]
    """How far the adapter moves the base: what the other distances are to be held against."""
    device: str
    is_large: bool = False
    """Whether it was computed in few passes, as its export is to be."""


def measure_trained(source: Source, probe: Probe, *, onto: Onto = "trained") -> Learnt:
    """What the model does with the probe; nothing of it stays in memory.

    Raises ProofError where its logits are not finite.
    """
    model = source.load(source.base.dtype, onto)
    source.say(f"computing what the trained model does: {len(probe.rows)} rows, {len(probe.prompts)} answers")
    device = next(model.parameters()).device
    large = is_large(num_weights(model), device.type)
    behaviour = measure(model, probe, is_large=large)
    if not all(torch.isfinite(logits).all() for logits in (*behaviour.logits, *behaviour.answer_logits)):
        cure = "nothing was written; look at the losses of the training, or use --which best"
        raise ProofError("the trained model's own logits are not finite", cure=cure)
    with model.disable_adapter():
        untaught = batch_logits(model, probe.rows) if large else tuple(logits_of(model, row) for row in probe.rows)
    effect = distance(behaviour.logits, untaught).as_json()
    return Learnt(behaviour, effect, str(device), large)
