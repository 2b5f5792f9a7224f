"""Watches that the adapter learns: by the second step every trained tensor must have had a gradient."""

import torch

from fledge.errors import TrainingError

SETTLED_BY = 2


class GradientWatch:
    """Notes which tensors have had a non-zero gradient. B starts at zero, so A's first gradient is zero too."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Tensors that the optimiser's moments show to have moved, before a resume, need not move again."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._waiting = {name: p for name, p in trained.items() if not _has_moved(optimizer, p)}

    def look(self) -> None:
        """Called while a step's gradients are there. They are finite: the step has checked."""
        moved = [name for name, p in self._waiting.items() if p.grad is not None and bool(p.grad.any())]
        for name in moved:
            del self._waiting[name]

    def settle(self, step: int) -> None:
        """Raises TrainingError after step 2 where a tensor has not had a gradient yet."""
        if step != SETTLED_BY or not self._waiting:
            return
        names = sorted(self._waiting)
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise TrainingError(
            f"{len(names)} adapter tensors got no gradient in the first {SETTLED_BY} steps: {shown}",
            where="lora.target_modules",
            cure="they take no part in the loss of the first rows: leave modules out of the targets, "
            "or unused tokens out of data.new_special_tokens",
        )


def _has_moved(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> bool:
    moments = optimizer.state.get(parameter, {})
    return "exp_avg" in moments and bool(moments["exp_avg"].any())
