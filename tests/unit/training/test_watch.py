"""By the second step an adapter learns, or a person knows which part of it does not."""

import pytest
import torch
from torch import nn

from fledge.errors import TrainingError
from fledge.training.watch import GradientWatch


class Layer(nn.Module):
    """As peft wraps a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(4, 4).requires_grad_(requires_grad=False)
        self.lora_A = nn.Linear(4, 2, bias=False)
        self.lora_B = nn.Linear(2, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


class Model(nn.Module):
    """A layer, experts of which some get tokens, and a layer whose result nobody uses."""

    def __init__(self, *, experts: int = 0, idle: int = 0) -> None:
        super().__init__()
        self.first = nn.ModuleList(Layer() for _ in range(2))
        self.experts = nn.ModuleList(Layer() for _ in range(experts))
        self.idle = nn.ModuleList(Layer() for _ in range(idle))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.first:
            x = layer(x)
        for expert in self.experts:
            expert(x[:0])
        for layer in self.idle:
            layer(x)
        return x


def after_two_steps(model: nn.Module, *, may_rest: bool) -> str | None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    watch = GradientWatch(model, optimizer, may_rest=may_rest)
    for step in (1, 2):
        model(torch.randn(3, 4)).square().sum().backward()
        watch.look()
        text = watch.settle(step)
        optimizer.step()
        optimizer.zero_grad()
    return text


@pytest.mark.parametrize("may_rest", [True, False])
def test_nothing_is_said_where_all_learn(may_rest):
    assert after_two_steps(Model(), may_rest=may_rest) is None


@pytest.mark.parametrize("may_rest", [True, False])
def test_experts_that_no_token_has_reached_are_told(may_rest):
    assert "8 adapter tensors have seen no token" in (after_two_steps(Model(experts=4), may_rest=may_rest) or "")


def test_layers_that_take_no_part_are_told_where_nobody_chose_them_and_refused_where_somebody_did():
    assert "2 adapter tensors have had no gradient" in (after_two_steps(Model(idle=1), may_rest=True) or "")
    with pytest.raises(TrainingError, match="2 adapter tensors got no gradient"):
        after_two_steps(Model(idle=1), may_rest=False)


def test_an_adapter_of_which_most_does_not_learn_is_refused():
    with pytest.raises(TrainingError, match="6 adapter tensors got no gradient"):
        after_two_steps(Model(idle=3), may_rest=True)


def test_where_no_layer_is_asked_as_by_the_engine_none_is_taken_for_an_expert():
    model = Model()
    watch = GradientWatch(model, torch.optim.AdamW(model.parameters()), may_rest=False)
    watch.look()
    with pytest.raises(TrainingError, match="4 adapter tensors got no gradient"):
        watch.settle(2)
