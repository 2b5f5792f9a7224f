"""A run's merged model, tensor by tensor: read or dequantised, merged in float32, and not rounded yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fledge.adapters.merge import LowRank, Update, apart, merged, read_updates, rows_of
from fledge.config.model import Dtype
from fledge.errors import ProofError
from fledge.exporting.trained import Source
from fledge.models.outline import Make, Outline, dequantized_weights, filled, read_outline

Base = Literal["full", "dequantized"]
LAYER_LIMIT = 1e-6
"""How far a merged layer's products may be off: some roundings of float32, each 6e-8."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What the adapter makes of its base. No weight of the base in full precision is held: each is read anew."""

    outline: Outline
    updates: Mapping[str, Update]
    dequantized: Mapping[str, Make]
    """Weights that are made of a quantised base's codes instead of being read."""

    def names(self) -> tuple[str, ...]:
        """Of all tensors of the model, those that are tied too."""
        return tuple(self.outline.model.state_dict())

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor of the merged model, in float32, in memory of its own. What is no floating point number stays so.

        Raises ProofError where it would not be finite.
        """
        own = self.outline.own_name(name)
        weight, update = self._base(own), self.updates.get(own)
        return weight if update is None else merged(weight, update, name=own, is_turned=self.outline.is_turned(own))

    def model(self, dtype: Dtype) -> Any:
        """The merged model, each tensor rounded once to a number format; on the CPU."""
        return filled(self.outline, self.tensor, dtype=dtype)

    def check_layers(self) -> dict[str, Any]:
        """The certificate's `merge` where the float32 model has no room: each merged layer against base and adapter
        side by side. Raises ProofError where one is further off than float32 explains.
        """
        worst, layers = 0.0, 0
        for name, update in self.updates.items():
            if isinstance(update, LowRank):
                is_turned = self.outline.is_turned(name)
                found = apart(update, before=self._base(name), after=self.tensor(name), is_turned=is_turned)
                worst, layers = max(worst, found), layers + 1
                if not found <= LAYER_LIMIT:
                    what = f"merging: the products of {name} differ by {found:.2g}, {LAYER_LIMIT:.2g} allowed"
                    raise ProofError(what, cure="nothing was written; report this with the base's name")
        return {"how": "layers", "layers": layers, "relative": worst, "tolerance": {"relative": LAYER_LIMIT}}

    def _base(self, name: str) -> torch.Tensor:
        """The base's tensor, with room for the rows of new tokens."""
        if name in self.dequantized:
            made = self.dequantized[name]()
            return made.T.contiguous() if self.outline.is_turned(name) else made
        read = self.outline.read(name)
        weight = read.float() if read.is_floating_point() else read
        more = self.outline.model.state_dict()[name].shape[0] - weight.shape[0] if weight.dim() else 0
        return torch.cat([weight, weight.new_zeros(more, *weight.shape[1:])]) if more > 0 else weight


def outline_of(source: Source) -> tuple[Outline, dict[str, Update]]:
    """What is to be merged. Raises ProofError where the adapter changes what the base has not."""
    updates = read_updates(source.adapter)
    outline = read_outline(source.base, rows=rows_of(updates))
    updates = {outline.own_name(name): update for name, update in updates.items()}
    unknown = sorted(updates.keys() - outline.names.keys())
    if unknown:
        what = f"the adapter changes {len(unknown)} tensors that its base has not, the first {unknown[0]}"
        raise ProofError(what, where=str(source.adapter), cure="use the base that it was trained on")
    return outline, updates


def merged_onto(source: Source, base: Base, *, outline: Outline, updates: Mapping[str, Update]) -> Merged:
    """The merged model on the base as it came or, of a quantised run, on what its numbers stand for."""
    return Merged(outline, updates, dequantized_weights(source.base) if base == "dequantized" else {})
