"""Eight-bit weights: a scale for each row, the nearest integers, exact in half precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.errors import ModelError
from fledge.ops import int8
from fledge.ops.int8 import LARGEST, dequantize_int8, quantize_int8


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 1000), st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_no_weight_is_further_off_than_half_a_step_of_its_row(rows, columns, seed, size):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    quantized = quantize_int8(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / LARGEST
    assert bool(((dequantize_int8(quantized) - weight).abs() <= step * 0.5001).all())
    assert int(quantized.codes.abs().max()) == LARGEST


def test_the_integers_are_exact_in_bfloat16_and_float16():
    codes = torch.arange(-LARGEST, LARGEST + 1, dtype=torch.int8)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(codes.to(dtype).to(torch.int8), codes)


def test_what_is_worked_on_at_once_changes_no_bit(monkeypatch):
    weight = torch.randn(33, 70, generator=torch.Generator().manual_seed(0))
    whole = quantize_int8(weight)
    monkeypatch.setattr(int8, "CHUNK", 64)
    again = quantize_int8(weight)
    assert torch.equal(whole.codes, again.codes) and torch.equal(whole.scale, again.scale)


def test_a_row_of_zeros_stays_zero():
    weight = torch.ones(3, 5)
    weight[1] = 0
    assert torch.equal(dequantize_int8(quantize_int8(weight)), weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_refused(bad):
    weight = torch.randn(5, 9)
    weight[3, 8] = bad
    with pytest.raises(ModelError, match="not finite"):
        quantize_int8(weight)
