"""The tensors of an adapter under the names that peft saves them by, and in what two sets of them differ."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from peft import PeftModel, get_peft_model_state_dict

Shapes = Mapping[str, tuple[int, ...]]


def state_of(adapted: PeftModel) -> dict[str, torch.Tensor]:
    """What peft saves of an adapter."""
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return state


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@dataclass(frozen=True, slots=True)
class Differences:
    """Names of tensors, sorted."""

    lacking: tuple[str, ...]
    extra: tuple[str, ...]
    others: tuple[str, ...]
    """Those of another shape."""


SAME = Differences((), (), ())


def differences(found: Shapes, wanted: Shapes) -> Differences:
    """In what the tensors that are there differ from those that should be."""
    both = wanted.keys() & found.keys()
    return Differences(
        tuple(sorted(wanted.keys() - found.keys())),
        tuple(sorted(found.keys() - wanted.keys())),
        tuple(sorted(name for name in both if wanted[name] != found[name])),
    )
