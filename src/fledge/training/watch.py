"""Watches that the adapter learns: by the second step every trained tensor must have had a gradient."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from fledge.errors import TrainingError

SETTLED_BY = 2


class GradientWatch:
    """Notes which tensors have had a non-zero gradient. B starts at zero, so A's first gradient is zero too."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, may_rest: bool = False) -> None:
        """Tensors that the optimiser's moments show to have moved, before a resume, need not move again. With
        `may_rest` some may get no gradient at all, for nobody has chosen their layers one by one.
        """
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._waiting = {name: p for name, p in trained.items() if not _has_moved(optimizer, p)}
        self._layers = _Visits(model, self._waiting)
        self._may_rest, self._count = may_rest, len(trained)

    def look(self) -> None:
        """Called while a step's gradients are there. They are finite: the step has checked."""
        moved = [name for name, p in self._waiting.items() if p.grad is not None and bool(p.grad.any())]
        for name in moved:
            del self._waiting[name]

    def settle(self, step: int) -> str | None:
        """After step 2, what a person should know of tensors that have had no gradient yet: experts that no token has
        reached, and layers that take no part in the loss.

        Raises TrainingError there where a tensor has had none although its layer was given tokens and was chosen, or
        where that is so of half of all tensors.
        """
        if step != SETTLED_BY:
            return None
        unreached = self._layers.unreached()
        names = sorted(name for name in self._waiting if name not in unreached)
        if names and not (self._may_rest and 2 * len(names) < self._count):
            raise _no_gradient(names)
        left = sorted(self._waiting)
        if not left:
            return None
        what = "have had no gradient" if names else "have seen no token"
        return f"{len(left)} adapter tensors {what} in {SETTLED_BY} steps and are as they were: {_shown(left)}"


class _Visits:
    """Which layers that wait for a gradient were given tokens: an expert gets those that a router sends it."""

    def __init__(self, model: torch.nn.Module, waiting: Iterable[str]) -> None:
        self._names: dict[str, list[str]] = {}
        self._visited: set[str] = set()
        self._hooks = []
        for name in waiting:
            layer = _adapted_layer(model, name)
            if layer is not None:
                self._names.setdefault(layer, []).append(name)
        for layer in self._names:
            hook = functools.partial(self._note, layer)
            self._hooks.append(model.get_submodule(layer).register_forward_pre_hook(hook))

    def _note(self, layer: str, _: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if any(isinstance(each, torch.Tensor) and each.numel() for each in given):
            self._visited.add(layer)

    def unreached(self) -> set[str]:
        """Tensors of layers that no token has reached; none where no layer was asked at all, as with the engine."""
        for hook in self._hooks:
            hook.remove()
        layers = set(self._names) - self._visited if self._visited else set()
        return {name for layer in layers for name in self._names[layer]}


def _adapted_layer(model: torch.nn.Module, name: str) -> str | None:
    """The layer around a trained tensor that has an adapter beside its own weight."""
    parts = name.split(".")
    above = (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((each for each in above if hasattr(model.get_submodule(each), "base_layer")), None)


def _no_gradient(names: Sequence[str]) -> TrainingError:
    return TrainingError(
        f"{len(names)} adapter tensors got no gradient in the first {SETTLED_BY} steps: {_shown(names)}",
        where="lora.target_modules",
        cure="they take no part in the loss of the first rows: leave modules out of the targets, "
        "or unused tokens out of data.new_special_tokens",
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _has_moved(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> bool:
    moments = optimizer.state.get(parameter, {})
    return "exp_avg" in moments and bool(moments["exp_avg"].any())
