"""The fused norms, activations, rotations and losses: what the operations beside them give, in one pass."""

import pytest
import torch

from fledge.ops.activation import ACTIVATIONS, activate, activation_gradient
from fledge.ops.buffers import Buffers
from fledge.ops.choice import fused, unfused
from fledge.ops.cross_entropy import Head, head_cross_entropy, sum_cross_entropy
from fledge.ops.norm import Norm, add_norm_gradient, normalise, reference_norm
from fledge.ops.rotary import reference_rotate, rotate
from tests.fused.devices import DEVICE, DTYPES, needs_kernels
from tests.unit.ops.near import assert_near, assert_no_worse, normal

pytestmark = needs_kernels
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def on_device(*shape, seed=0, dtype=torch.float32, scale=1.0):
    return normal(*shape, seed=seed, scale=scale).to(DEVICE, dtype)


def compare(found, plain, exact, dtype):
    if dtype == torch.float32:
        assert_near(found, exact)
    else:
        assert_no_worse(found, plain, exact)


def test_the_switch_turns_them_off():
    x = on_device(1)
    assert fused("attention", x) is not None
    with unfused():
        assert fused("norm", x) is None
    assert fused("attention", x) is not None


@each_dtype
@pytest.mark.parametrize("kind", ["layer", "layer without bias", "rms"])
@pytest.mark.parametrize("width", [64, 70, 1000])
def test_norms(kind, width, dtype):
    bias = 0.3 * on_device(width, seed=3) if kind == "layer" else None
    norm = Norm("rms" if kind == "rms" else "layer", 1 + 0.3 * on_device(width, seed=2), bias, 1e-5)
    x, dy, before = (on_device(30, width, seed=seed, dtype=dtype) for seed in range(3))
    dx, buffers = before.clone(), Buffers(DEVICE)
    y = normalise(x, norm, out=torch.full_like(x, float("nan")), buffers=buffers)
    add_norm_gradient(dx, dy, x=x, norm=norm, buffers=buffers)

    def reference(x, dy, before):
        x = x.clone().requires_grad_()
        y = reference_norm(x, norm)
        return [y.detach(), before + torch.autograd.grad(y, x, dy)[0]]

    compare([y, dx], reference(x, dy, before), reference(x.float(), dy.float(), before.float()), dtype)


@each_dtype
@pytest.mark.parametrize("is_gated", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)
def test_activations(activation, is_gated, dtype):
    x, up, dy = (on_device(50, 70, seed=seed, dtype=dtype, scale=3.0) for seed in range(3))
    found = [activate(activation, x, up=up if is_gated else None, out=torch.full_like(x, float("nan"))), dy.clone()]
    of_up = torch.full_like(x, float("nan")) if is_gated else None
    activation_gradient(activation, found[1], x=x, up=up if is_gated else None, dup=of_up)

    def reference(x, up, dy):
        leaves = [x.clone().requires_grad_(), *([up.clone().requires_grad_()] if is_gated else [])]
        y = activation.reference(leaves[0])
        y = y * leaves[1] if is_gated else y
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    found += [of_up] if is_gated else []
    compare(found, reference(x, up, dy), reference(x.float(), up.float(), dy.float()), dtype)


@each_dtype
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("shape", [(13, 3, 2, 16), (13, 5, 16), (13, 40, 1, 24)], ids=str)
def test_rotary_positions(shape, back, dtype):
    """Three quarters of the features are rotated, in a view that others lie beside."""
    width = shape[-1] // 4 * 3 // 2 * 2
    angles = on_device(13, width // 2, seed=1, scale=3.0).repeat(1, 2)
    turns = angles.cos(), angles.sin()
    wide = on_device(shape[0], shape[1], *shape[2:-1], shape[-1] + 8, dtype=dtype)
    x = wide[..., : shape[-1]]
    beside, turned = wide[..., shape[-1] :].clone(), (turns[0], -turns[1] if back else turns[1])
    exact, plain = reference_rotate(x.float(), turned), reference_rotate(x, turned).to(dtype)
    rotate(x, turns, buffers=Buffers(DEVICE), back=back)
    compare([x], [plain], [exact], dtype)
    assert torch.equal(wide[..., shape[-1] :], beside)


@each_dtype
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("vocabulary", [50, 5000])
def test_losses_and_their_gradients(vocabulary, softcap, dtype):
    hidden, weight = on_device(40, 32, dtype=dtype), on_device(vocabulary, 32, seed=1, dtype=dtype)
    labels = torch.arange(40, device=DEVICE) * 17 % vocabulary

    def by(loss_of, hidden):
        hidden = hidden.clone().requires_grad_()
        loss = loss_of(hidden)
        return [loss.detach(), *torch.autograd.grad(loss * 0.01, hidden)]

    def plain(hidden, weight=weight):
        logits = hidden @ weight.to(hidden.dtype).t()
        logits = logits if softcap is None else softcap * torch.tanh(logits.float() / softcap)
        return sum_cross_entropy(logits, labels)

    def ours(hidden):
        return head_cross_entropy(hidden, labels, head=Head(weight, softcap=softcap), buffers=Buffers(DEVICE))

    compare(by(ours, hidden), by(plain, hidden), by(plain, hidden.float()), dtype)
    loss = by(ours, hidden)[0]
    with torch.no_grad():
        assert_near([ours(hidden)], [loss], within=1e-6)
