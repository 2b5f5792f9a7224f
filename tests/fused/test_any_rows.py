"""The fused norms, activations, rotations and losses on sizes and steps that no one chose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.ops.activation import ACTIVATIONS, activate, activation_gradient
from fledge.ops.buffers import Buffers
from fledge.ops.choice import unfused
from fledge.ops.cross_entropy import Head, head_cross_entropy
from fledge.ops.norm import Norm, add_norm_gradient, normalise
from fledge.ops.rotary import rotate
from tests.fused.devices import DEVICE, IS_INTERPRETED, needs_kernels
from tests.fused.test_operations import on_device

pytestmark = [needs_kernels, pytest.mark.skipif(IS_INTERPRETED, reason="element by element it takes minutes")]
ROWS, WIDTHS = st.integers(1, 40), st.integers(1, 70) | st.integers(1, 300)
any_sizes = settings(max_examples=60, deadline=None)


def both(compute):
    """Computed by the kernels, and without them: the same to 1e-5 of the largest value, or of 1."""
    found = compute()
    with unfused():
        wanted = compute()
    for number, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        apart, size = ((x.abs().max().item()) for x in (ours - theirs, theirs))
        assert apart <= 1e-5 * max(size, 1.0), number


@any_sizes
@given(ROWS, WIDTHS, st.integers(0, 9), st.sampled_from(["layer", "rms"]), st.booleans())
def test_norms(rows, width, beside, kind, has_bias):
    """Of rows that something else lies beside; with an epsilon by which rounding in a narrow row is not magnified."""
    bias = on_device(width, seed=3) if kind == "layer" and has_bias else None
    norm = Norm(kind, on_device(width, seed=2), bias, 0.1)
    x, dy, before = (on_device(rows, width + beside, seed=seed)[:, :width] for seed in range(3))

    def compute():
        dx, buffers, wide = torch.zeros(rows, width + beside, device=DEVICE), Buffers(DEVICE), torch.zeros_like(x)
        dx[:, :width] = before
        y = normalise(x, norm, out=wide, buffers=buffers)
        add_norm_gradient(dx[:, :width], dy, x=x, norm=norm, buffers=buffers)
        return y, dx

    both(compute)


@any_sizes
@given(ROWS, WIDTHS, st.sampled_from(ACTIVATIONS), st.booleans())
def test_activations(rows, width, activation, is_gated):
    x, up, dy = (on_device(rows, width, seed=seed, scale=4.0) for seed in range(3))

    def compute():
        gate = up if is_gated else None
        dx, dup = dy.clone(), torch.zeros_like(x) if is_gated else None
        y = activate(activation, x, up=gate, out=torch.zeros_like(x))
        activation_gradient(activation, dx, x=x, up=gate, dup=dup)
        return [y, dx, *([dup] if is_gated else [])]

    both(compute)


@any_sizes
@given(ROWS, st.integers(1, 4), st.integers(1, 40), st.integers(0, 9), st.booleans())
def test_rotary_positions(positions, heads, half, beside, back):
    angles = on_device(positions, half, seed=1, scale=3.0).repeat(1, 2)
    wide = on_device(positions, heads, 2 * half + beside)

    def compute():
        x = wide.clone()
        rotate(x[..., : 2 * half], (angles.cos(), angles.sin()), buffers=Buffers(DEVICE), back=back)
        return [x]

    both(compute)


@any_sizes
@given(ROWS, st.integers(2, 70) | st.integers(2, 9000), st.none() | st.floats(0.5, 30), st.booleans())
def test_losses(rows, vocabulary, softcap, has_bias):
    hidden, weight = on_device(rows, 24), on_device(vocabulary, 24, seed=1)
    bias = on_device(vocabulary, seed=2) if has_bias else None
    labels = torch.arange(rows, device=DEVICE) * 7919 % vocabulary

    def compute():
        states = hidden.clone().requires_grad_()
        loss = head_cross_entropy(states, labels, head=Head(weight, bias, softcap), buffers=Buffers(DEVICE))
        return [loss.detach()[None], *torch.autograd.grad(loss, states)]

    both(compute)
