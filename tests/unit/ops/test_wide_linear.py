"""The library's linears by float32 tiles: values and gradients of its own, and no others are touched."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fledge.ops import product, wide_linear
from fledge.ops.wide_linear import wide_linears


@pytest.fixture(params=[True, False], ids=["widened", "as it is"])
def is_widened(request, monkeypatch):
    for module in (product, wide_linear):
        monkeypatch.setattr(module, "must_widen", lambda dtype, kind: request.param and dtype != torch.float32)
    return request.param


@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_the_float32_ones_within_rounding(is_widened, has_bias):
    layer = nn.Linear(12, 7, bias=has_bias).bfloat16().requires_grad_(requires_grad=False)
    x = torch.randn(2, 5, 12).bfloat16().requires_grad_()
    dy = torch.randn(2, 5, 7).bfloat16()
    with wide_linears(torch.bfloat16, "cpu"):
        y = layer(x)
    assert (type(y.grad_fn).__name__ == "_LinearBackward") == is_widened
    (dx,) = torch.autograd.grad(y, x, dy)
    bias = None if layer.bias is None else layer.bias.float()
    torch.testing.assert_close(y.float(), F.linear(x.float(), layer.weight.float(), bias), rtol=8e-3, atol=8e-3)
    torch.testing.assert_close(dx.float(), dy.float() @ layer.weight.float(), rtol=8e-3, atol=8e-3)


def test_what_is_trained_gets_its_gradient(is_widened):
    layer = nn.Linear(12, 7).bfloat16()
    with wide_linears(torch.bfloat16, "cpu"):
        layer(torch.randn(3, 12).bfloat16()).sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None


def test_float32_linears_beside_them_are_torchs(is_widened):
    layer, x = nn.Linear(12, 7), torch.randn(3, 12)
    with wide_linears(torch.bfloat16, "cpu"):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
