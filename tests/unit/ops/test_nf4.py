"""Four-bit weights: every shape, the same whatever is worked on at once, nearest levels, nothing hidden."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.errors import ModelError
from fledge.ops import nf4
from fledge.ops.nf4 import BLOCK, LEVELS, dequantize_nf4, quantize_nf4, reference_dequantize_nf4, scales_of


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(st.integers(1, 70), st.integers(1, 200), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_any_shape_comes_back_as_the_reference_says_and_near_its_weights(rows, columns, seed):
    weight = drawn(rows, columns, seed=seed)
    quantized = quantize_nf4(weight)
    assert quantized.codes.numel() == -(-weight.numel() // 2)
    found = dequantize_nf4(quantized, torch.empty(weight.shape))
    assert torch.equal(found, reference_dequantize_nf4(quantized, tuple(weight.shape)))
    # half the widest gap between levels, and what the scales in 8 bits lose
    allowed = scales_of(quantized).repeat_interleave(BLOCK)[: weight.numel()].view(weight.shape) * 0.16 + 0.05
    assert bool(((found - weight).abs() <= allowed).all())


@pytest.mark.parametrize("chunk", [128, 4096])
def test_what_is_worked_on_at_once_changes_no_bit(monkeypatch, chunk):
    weight = drawn(37, 331)
    whole = quantize_nf4(weight)
    out = dequantize_nf4(whole, torch.empty(weight.shape, dtype=torch.bfloat16))
    monkeypatch.setattr(nf4, "CHUNK", chunk)
    again = quantize_nf4(weight)
    assert torch.equal(whole.codes, again.codes) and torch.equal(whole.scale_codes, again.scale_codes)
    assert torch.equal(out, dequantize_nf4(again, torch.empty(weight.shape, dtype=torch.bfloat16)))


def test_a_value_takes_the_level_whose_midpoints_it_lies_between_to_the_last_bit():
    levels = torch.tensor(LEVELS)
    midpoints = (levels[:-1] + levels[1:]) / 2
    even = torch.arange(-16, 17) / 16.0
    edges = torch.cat([midpoints, even, levels])
    values = torch.cat([edges, *(torch.nextafter(edges, torch.tensor(end)) for end in (-2.0, 2.0))])
    shares = torch.nn.functional.pad(values.clamp(-1, 1), (0, -values.numel() % (BLOCK - 1)))
    blocks = torch.cat([torch.ones(shares.numel() // (BLOCK - 1), 1), shares.view(-1, BLOCK - 1)], dim=1)
    codes = quantize_nf4(blocks).codes
    found = torch.stack([codes >> 4, codes & 15], dim=1).view(-1)
    assert torch.equal(found, torch.bucketize(blocks.view(-1), midpoints).to(torch.uint8))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_refused(bad):
    weight = drawn(5, 100)
    weight[3, 99] = bad
    with pytest.raises(ModelError, match="not finite"):
        quantize_nf4(weight)


def test_zeros_stay_zeros():
    weight = drawn(8, 640)
    weight[:4] = 0
    found = dequantize_nf4(quantize_nf4(torch.zeros(8, 640)), torch.empty(8, 640))
    assert torch.equal(found, torch.zeros(8, 640))
    kept = dequantize_nf4(quantize_nf4(weight), torch.empty(8, 640))
    assert bool((kept[:4] == 0).all())
