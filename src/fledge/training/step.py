"""One optimiser step, as it should read."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fledge.data.rows import Batch
from fledge.runtime.mesh import Mesh
from fledge.runtime.precision import Scaler
from fledge.training.optimizer import parameters_of

LossOf = Callable[[torch.nn.Module, Batch], torch.Tensor]
"""The sum of token losses over a batch's supervised tokens, float32, differentiable."""

Watch = Callable[[], None]
"""Called between the backward passes and the update, while the step's gradients are there to be looked at."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did. `is_applied` is False where something was not finite and the weights were left alone."""

    loss: float
    grad_norm: float
    tokens: int
    supervised_tokens: int
    is_applied: bool


def train_step(
    model: torch.nn.Module,
    batches: Sequence[Batch],
    loss_of: LossOf,
    optimizer: torch.optim.Optimizer,
    *,
    mesh: Mesh,
    scaler: Scaler,
    max_norm: float | None,
    watch: Watch,
) -> StepResult:
    """One optimiser step over `batches`, this rank's micro-batches of one accumulation.

    The gradient is that of  sum(token losses) / supervised tokens,  both taken over every micro-batch and every
    rank, so batch shape and rank count do not change it. Where the loss or the gradient is not finite on any rank,
    no rank updates its weights.
    """
    parameters = parameters_of(optimizer)
    device = parameters[0].device
    counts = torch.tensor([[b.num_tokens, b.supervised_tokens] for b in batches] or [[0, 0]]).sum(0)
    tokens, supervised = mesh.sum(counts).tolist()
    total = torch.zeros((), dtype=torch.float64, device=device)
    for index, batch in enumerate(batches):
        with mesh.sync_gradients(when=index == len(batches) - 1):
            loss = loss_of(model, batch)
            scaler.scale(loss * (mesh.undo_mean / supervised)).backward()
        total += loss.detach()
    mesh.reduce_gradients(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    scaler.unscale(gradients)
    norm = torch.nn.utils.get_total_norm(gradients)
    # all that a step asks of its device, once; several ranks have asked for their counts too
    mean_loss, grad_norm = torch.stack([mesh.sum(total) / supervised, norm.double()]).tolist()
    is_finite = math.isfinite(mean_loss) and math.isfinite(grad_norm)
    if is_finite:
        watch()
        if max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(mean_loss, grad_norm, tokens, supervised, is_finite)
