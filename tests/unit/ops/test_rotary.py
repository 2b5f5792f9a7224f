"""Rotary positions in place: the library's rotation, its transpose for gradients, and nothing else touched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.ops.buffers import Buffers
from fledge.ops.rotary import reference_rotate, rotate
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, normal

POSITIONS = 13


def turns(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [T,R] as the library makes them, for scattered positions."""
    angles = torch.arange(POSITIONS)[:, None] * 7 % 11 * 0.37 ** torch.arange(width // 2)
    whole = torch.cat((angles, angles), dim=-1)
    return whole.cos(), whole.sin()


def rotated(x: torch.Tensor, width: int, *, back: bool = False) -> torch.Tensor:
    x = x.clone()
    rotate(x, turns(width), buffers=Buffers(torch.device("cpu")), back=back)
    return x


heads = st.lists(st.integers(1, 3), min_size=1, max_size=2)


@settings(max_examples=30, deadline=None)
@given(heads, st.integers(1, 4), st.integers(0, 5))
def test_it_is_the_references_rotation_for_any_heads_and_any_part_of_a_head(found, half, rest):
    x = normal(POSITIONS, *found, 2 * half + rest)
    assert_near([rotated(x, 2 * half)], [reference_rotate(x, turns(2 * half))], within=1e-6)


@settings(max_examples=30, deadline=None)
@given(heads, st.integers(1, 4), st.integers(0, 5))
def test_back_is_the_gradient_and_undoes_it(found, half, rest):
    x, dy = (normal(POSITIONS, *found, 2 * half + rest, seed=seed) for seed in (0, 1))
    leaf = x.clone().requires_grad_()
    wanted = torch.autograd.grad(reference_rotate(leaf, turns(2 * half)), leaf, dy)
    assert_near([rotated(dy, 2 * half, back=True)], wanted, within=1e-6)
    assert_near([rotated(rotated(x, 2 * half), 2 * half, back=True)], [x], within=1e-6)


def test_a_view_of_a_projection_is_rotated_in_place_and_the_rest_is_left():
    projected = normal(POSITIONS, 4 * 3 * 8)
    before = projected.clone().view(POSITIONS, 4, 3, 8)
    views = projected.view(POSITIONS, 4, 3, 8)
    rotate(views[:, :, 0], turns(4), buffers=Buffers(torch.device("cpu")))
    assert_near([views[:, :, 0]], [reference_rotate(before[:, :, 0], turns(4))], within=1e-6)
    assert torch.equal(views[:, :, 1:], before[:, :, 1:])
    assert torch.equal(views[..., 4:], before[..., 4:])


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_rounded_once(dtype):
    x = normal(POSITIONS, 4, 2, 16, dtype=dtype)
    exact = reference_rotate(x.float(), turns(16))
    plain = reference_rotate(x, tuple(turn.to(dtype) for turn in turns(16)))
    assert plain.dtype == dtype
    assert_no_worse([rotated(x, 16)], [plain], [exact], factor=1.0)
    assert_near([rotated(x, 16)], [exact.to(dtype)], within=1e-4)
