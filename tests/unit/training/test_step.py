"""The step: one normalisation, whatever the shape of the batches; nothing applied that is not finite."""

import itertools

import pytest
import torch

from fledge.config.train import TrainConfig
from fledge.runtime.mesh import OneRank
from fledge.runtime.precision import DynamicScaler, NoScaler
from fledge.training.loss import to_device
from fledge.training.optimizer import build_optimizer
from fledge.training.step import train_step

from .toy import Toy, toy_batch, toy_loss


def gradients_of(batches, *, scaler=None, loss_of=toy_loss):
    model = Toy()
    seen = {}
    result = train_step(
        model,
        batches,
        loss_of,
        build_optimizer(model.named_parameters(), TrainConfig(), b_lr_ratio=None),
        mesh=OneRank(),
        scaler=scaler or NoScaler(),
        max_norm=None,
        watch=lambda: seen.update({n: p.grad.clone() for n, p in model.named_parameters()}),
    )
    return model, result, seen


def test_gradient_is_that_of_the_sum_over_supervised_tokens():
    rows = range(5)
    _, result, seen = gradients_of([toy_batch(row) for row in rows])
    model = Toy()
    total = sum(toy_loss(model, toy_batch(row)) for row in rows)
    tokens = sum(toy_batch(row).supervised_tokens for row in rows)
    (total / tokens).backward()
    assert result.supervised_tokens == tokens
    assert result.loss == pytest.approx(total.item() / tokens, abs=1e-6)
    assert len(seen) == 2
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(seen[name], parameter.grad, rtol=0, atol=1e-6)


def test_a_step_asks_its_device_nothing_before_its_loss_and_norm():
    """On the meta device no value can be read: all backward passes are through when the first one is asked for."""
    model, seen = Toy().to("meta"), []

    def loss_of(model, batch):
        seen.append(batch.rows)
        return toy_loss(model, to_device(batch, torch.device("meta")))

    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(NotImplementedError, match="meta") as caught:
        batches = [toy_batch(row) for row in range(3)]
        step_with = {"mesh": OneRank(), "scaler": DynamicScaler(), "max_norm": 1.0, "watch": lambda: None}
        train_step(model, batches, loss_of, optimizer, **step_with)
    assert seen == [(0,), (1,), (2,)]
    assert all(p.grad is not None for p in model.parameters())
    [line] = [str(entry.statement) for entry in caught.traceback if entry.name == "train_step"]
    assert line.strip().startswith("mean_loss, grad_norm =")


def test_order_of_micro_batches_does_not_change_the_gradient():
    orders = list(itertools.permutations(range(4)))
    assert len(orders) == 24
    _, first, reference = gradients_of([toy_batch(row) for row in orders[0]])
    for order in orders[1:]:
        _, result, seen = gradients_of([toy_batch(row) for row in order])
        assert result.loss == pytest.approx(first.loss, abs=1e-6)
        for name in reference:
            torch.testing.assert_close(seen[name], reference[name], rtol=0, atol=1e-6)


def test_a_power_of_two_scale_changes_no_bit_of_a_gradient():
    batches = [toy_batch(row) for row in range(3)]
    _, plain, reference = gradients_of(batches)
    _, scaled, seen = gradients_of(batches, scaler=DynamicScaler(1024.0))
    assert scaled.loss == plain.loss
    for name in reference:
        assert torch.equal(seen[name], reference[name])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_leaves_the_weights_alone(poison):
    model, result, seen = gradients_of(
        [toy_batch(0), toy_batch(1)], loss_of=lambda m, b: toy_loss(m, b) * (poison if b.rows == (1,) else 1.0)
    )
    assert not result.is_applied
    assert not seen
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), Toy().parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_clipping_bounds_the_norm_that_is_applied():
    model = Toy()
    norms = []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    result = train_step(
        model,
        [toy_batch(0)],
        toy_loss,
        optimizer,
        mesh=OneRank(),
        scaler=NoScaler(),
        max_norm=0.01,
        watch=lambda: norms.append(True),
    )
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before, strict=True)])
    assert norms == [True]
    assert result.grad_norm > 0.01
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-3)
