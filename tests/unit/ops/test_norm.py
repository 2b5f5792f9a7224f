"""Norms: the reference's values and gradients; what there is of a gradient already stays in it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.ops.buffers import Buffers
from fledge.ops.norm import Norm, add_norm_gradient, normalise, reference_norm
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, normal

KINDS = ("layer", "layer without bias", "rms")


def norm_of(kind: str, width: int) -> Norm:
    weight, bias = 1 + 0.3 * normal(width, seed=2), 0.3 * normal(width, seed=3)
    return Norm("rms" if kind == "rms" else "layer", weight, bias if kind == "layer" else None, 1e-5)


def by_us(x: torch.Tensor, dy: torch.Tensor, norm: Norm, before: torch.Tensor) -> list[torch.Tensor]:
    """The value, and the gradient added to `before`."""
    buffers, dx = Buffers(torch.device("cpu")), before.clone()
    y = normalise(x, norm, out=torch.full_like(x, float("nan")), buffers=buffers)
    assert add_norm_gradient(dx, dy, x=x, norm=norm, buffers=buffers) is dx
    return [y, dx]


def by_reference(x: torch.Tensor, dy: torch.Tensor, norm: Norm, before: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    y = reference_norm(x, norm)
    return [y.detach(), before + torch.autograd.grad(y, x, dy)[0]]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), width=st.integers(8, 70), offset=st.sampled_from([0.0, 3.0]), seed=st.integers(0, 9))
def test_value_and_gradient_are_the_references(kind, count, width, offset, seed):
    x, dy = normal(count, width, seed=seed) + offset, normal(count, width, seed=seed + 10)
    arguments = x, dy, norm_of(kind, width), normal(count, width, seed=seed + 20)
    assert_near(by_us(*arguments), by_reference(*arguments))


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_all_the_same_harm_nothing(kind):
    zeros, dy, norm = torch.zeros(5, 32), normal(5, 32), norm_of(kind, 32)
    assert_near(by_us(zeros, dy, norm, zeros), by_reference(zeros, dy, norm, zeros))


@pytest.mark.parametrize("kind", KINDS)
def test_features_far_above_the_others_lose_no_precision(kind):
    """As in real models, where a few features of the hidden states are a thousand times the rest."""
    x, dy, norm = normal(20, 64), normal(20, 64, seed=1), norm_of(kind, 64)
    x[:, 7] += 3000.0
    double = Norm(norm.kind, norm.weight.double(), None if norm.bias is None else norm.bias.double(), norm.eps)
    leaf = x.double().requires_grad_()
    mean = leaf.mean(1, keepdim=True) if norm.kind == "layer" else 0.0
    scale = (leaf - mean).square().mean(1, keepdim=True).add(norm.eps).rsqrt()
    y = (leaf - mean) * scale * double.weight + (0.0 if double.bias is None else double.bias)
    exact = [y.detach(), torch.autograd.grad(y, leaf, dy.double())[0]]
    assert_near(by_us(x, dy, norm, torch.zeros_like(x)), exact)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_rounded_once(kind, dtype):
    x, dy, before = (normal(40, 64, seed=seed, dtype=dtype) for seed in range(3))
    norm = norm_of(kind, 64)
    found, exact = by_us(x, dy, norm, before), by_reference(x.float(), dy.float(), norm, before.float())
    assert_no_worse(found, by_reference(x, dy, norm, before), exact)
    assert_near(found, [part.to(dtype) for part in exact], within=1e-4)
    assert {part.dtype for part in found} == {dtype}


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_in_the_buffers_does_not_matter(kind):
    x, dy, norm = normal(20, 32), normal(20, 32, seed=1), norm_of(kind, 32)
    buffers, zeros = Buffers(torch.device("cpu")), torch.zeros(20, 32)
    wanted = by_us(x, dy, norm, zeros)
    for name in ("norm.x", "norm.dy", "norm.sum"):
        buffers.take_rows(name, 20, 32, dtype=torch.float32).fill_(float("nan"))
    y = normalise(x, norm, out=torch.empty_like(x), buffers=buffers)
    dx = add_norm_gradient(zeros.clone(), dy, x=x, norm=norm, buffers=buffers)
    assert all(torch.equal(a, b) for a, b in zip((y, dx), wanted, strict=True))
