"""A value that is no number is not swallowed: where the references have one, the fused kernels have one too."""

import math

import pytest
import torch

from fledge.ops.activation import ACTIVATIONS, activate, activation_gradient
from fledge.ops.buffers import Buffers
from fledge.ops.cross_entropy import Head, head_cross_entropy
from fledge.ops.norm import Norm, add_norm_gradient, normalise
from fledge.ops.plan import Document, Shape
from tests.fused.devices import DEVICE, DTYPES, needs_kernels
from tests.fused.test_attention import by_reference, by_us, inputs
from tests.fused.test_operations import on_device
from tests.unit.ops.near import normal

pytestmark = needs_kernels
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
DOCUMENTS = [Document(0, 9), Document(9, 70, ((0, 9),)), Document(70, 90, ((0, 9),))]
AT = 20
"""The row with the odd value: of the second document, which the others do not see."""


@each_dtype
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_row_of_a_norm(kind, dtype):
    norm = Norm(kind, on_device(70, seed=2), on_device(70, seed=3) if kind == "layer" else None, 1e-5)
    x, dy = on_device(30, 70, dtype=dtype), on_device(30, 70, seed=1, dtype=dtype)
    x[AT, 69] = math.nan
    dx, buffers = torch.zeros_like(x), Buffers(DEVICE)
    y = normalise(x, norm, out=torch.empty_like(x), buffers=buffers)
    add_norm_gradient(dx, dy, x=x, norm=norm, buffers=buffers)
    for found in (y, dx):
        assert found[AT].isnan().all()
        found[AT] = 0
        assert found.isfinite().all()


@each_dtype
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)
def test_a_value_of_an_activation(activation, dtype):
    x, up, dy = (on_device(30, 70, seed=seed, dtype=dtype) for seed in range(3))
    x[AT, 69] = math.nan
    y = activate(activation, x, up=up, out=torch.empty_like(x))
    dup = torch.empty_like(x)
    activation_gradient(activation, dy, x=x, up=up, dup=dup)
    for found in (y, dup):
        assert found.isnan().nonzero().tolist() == [[AT, 69]]


@each_dtype
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_logit_that_is_no_label(odd, softcap, dtype):
    hidden, weight = on_device(40, 32, dtype=dtype).abs(), on_device(700, 32, seed=1, dtype=dtype)
    weight[699, 31] = odd
    labels = torch.arange(40, device=DEVICE)
    hidden.requires_grad_()
    loss = head_cross_entropy(hidden, labels, head=Head(weight, softcap=softcap), buffers=Buffers(DEVICE))
    if odd == math.inf and softcap is not None:
        assert loss.isfinite(), "a capped logit is finite"
        return
    assert not loss.isfinite()
    assert not torch.autograd.grad(loss, hidden)[0].isfinite().any()


@each_dtype
@pytest.mark.parametrize("kinds", [{}, {"softcap": 2.0}, {"window": 8}], ids=str)
@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize("which", range(3), ids=["query", "key", "value"])
def test_attention(which, odd, kinds, dtype):
    shape = Shape(2, 2, 16, 0.25, **kinds)
    qkv = inputs(DOCUMENTS, shape, dtype)
    qkv[which][AT, 1, ..., 3] = odd
    do = normal(*qkv[0].shape, seed=5).to(qkv[0])
    out, *gradients = by_us(qkv, do, DOCUMENTS, shape)
    # in float32: torch's product of bfloat16 by AMX gives NaN where the score is -inf, which takes no part
    wanted = by_reference([x.float() for x in qkv], do.float(), DOCUMENTS, shape)[0]
    last = AT if which == 0 else min(69, AT + (shape.window or 70) - 1)
    is_touched = torch.zeros_like(out, dtype=torch.bool)
    is_touched[AT : last + 1, 1] = True
    assert not out[is_touched & wanted.isnan()].isfinite().any()
    if which < 2:
        assert out[~is_touched].isfinite().all()
    if wanted.isnan().any():
        assert not all(gradient.isfinite().all() for gradient in gradients)
    else:
        assert odd == math.inf and shape.softcap is not None, "a capped score is finite"
    for found in (out, *gradients):
        assert found[:, 0].isfinite().all(), "another head"
        assert found[70:].isfinite().all(), "another document"
