"""The optimiser: fused AdamW over float32 adapter weights."""

from collections.abc import Iterable

import torch

from fledge.config.train import TrainConfig


def build_optimizer(
    named_parameters: Iterable[tuple[str, torch.nn.Parameter]], train: TrainConfig, *, b_lr_ratio: float | None
) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) over everything that is trained, in order of name.

    With `b_lr_ratio` the B matrices learn that many times faster than the rest (LoRA+, arXiv 2402.12354).
    Each group carries `lr_factor`, by which the schedule's rate is multiplied.
    """
    trained = sorted((name, parameter) for name, parameter in named_parameters if parameter.requires_grad)
    fast = [p for name, p in trained if _is_b(name)] if b_lr_ratio else []
    ids = {id(p) for p in fast}
    groups = [{"params": [p for _, p in trained if id(p) not in ids], "lr_factor": 1.0}]
    if fast:
        groups.append({"params": fast, "lr_factor": b_lr_ratio or 1.0})
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=train.learning_rate,
        betas=train.adam_betas,
        eps=train.adam_eps,
        weight_decay=train.weight_decay,
        fused=True,
    )


def _is_b(name: str) -> bool:
    return "lora_B" in name or "lora_embedding_B" in name


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the schedule's rate times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Everything the optimiser trains, in its own order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
