"""Activations into a buffer: the values and gradients of torch's own, and each found by its values."""

import pytest
import torch
from transformers.activations import ACT2FN
from transformers.models.bloom.modeling_bloom import BloomGelu

from fledge.ops.activation import ACTIVATIONS, find_activation
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, normal

BY_NAME = {activation.name: activation for activation in ACTIVATIONS}
KNOWN = {
    "gelu": "gelu_none",
    "gelu_python": "gelu_none",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}


def test_there_are_four_activations():
    assert set(BY_NAME) == {"gelu_tanh", "gelu_none", "silu", "relu"}
    assert len(ACTIVATIONS) == 4


def by_torch(activation, x, dy):
    """Value and gradient of the reference."""
    x = x.clone().requires_grad_()
    y = activation.reference(x)
    return y.detach(), torch.autograd.grad(y, x, dy)[0]


def by_us(activation, x, dy):
    y, dx = torch.full_like(x, float("nan")), torch.full_like(x, float("nan"))
    activation.forward(x, y)
    activation.backward(dy, x, dx)
    return y, dx


@pytest.mark.parametrize("name", BY_NAME)
def test_value_and_gradient_are_the_references(name):
    x, dy = normal(37, 24, scale=3.0), normal(37, 24, seed=1)
    assert_near(by_us(BY_NAME[name], x, dy), by_torch(BY_NAME[name], x, dy))


@pytest.mark.parametrize("name", BY_NAME)
def test_a_gradient_may_be_written_over_what_it_is_given(name):
    x, dy = normal(37, 24, scale=3.0), normal(37, 24, seed=1)
    _, wanted = by_us(BY_NAME[name], x, dy)
    BY_NAME[name].backward(dy, x, dy)
    assert torch.equal(dy, wanted)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", BY_NAME)
def test_half_precision_adds_no_error(name, dtype):
    x, dy = normal(64, 48, scale=3.0, dtype=dtype), normal(64, 48, seed=1, dtype=dtype)
    exact = by_torch(BY_NAME[name], x.float(), dy.float())
    assert_no_worse(by_us(BY_NAME[name], x, dy), by_torch(BY_NAME[name], x, dy), exact)


@pytest.mark.parametrize("name", KNOWN)
def test_the_librarys_activations_are_found_by_their_values(name):
    found = find_activation(ACT2FN[name])
    assert found is not None
    assert found.name == KNOWN[name]


def test_blooms_own_gelu_is_the_tanh_one():
    found = find_activation(BloomGelu())
    assert found is not None
    assert found.name == "gelu_tanh"


@pytest.mark.parametrize("name", ["quick_gelu", "relu2", "relu6", "gelu_10", "mish", "tanh", "linear", "leaky_relu"])
def test_what_is_none_of_them_is_not_found(name):
    assert find_activation(ACT2FN[name]) is None
