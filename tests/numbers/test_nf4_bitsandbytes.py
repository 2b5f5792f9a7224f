"""nf4 is bitsandbytes': the same codes and scales bit for bit, and the same weights out of them."""

import json

import pytest
import torch

from fledge.ops.nf4 import by_bitsandbytes, dequantize_nf4, has_bitsandbytes, quantize_nf4
from tests.numbers.nf4_bitsandbytes import DTYPES, FILE, asked, digest, is_installed, weights


def ours(weight):
    quantized = quantize_nf4(weight)
    return {
        "codes": digest([quantized.codes]),
        "scales": digest([quantized.scale_codes, quantized.scale_sizes, quantized.scale_mean]),
    } | {name: digest([dequantize_nf4(quantized, torch.empty(weight.shape, dtype=d))]) for name, d in DTYPES.items()}


def test_codes_scales_and_weights_are_what_bitsandbytes_0_50_was_seen_to_make():
    noted = json.loads(FILE.read_text(encoding="utf-8"))
    assert noted["bitsandbytes"] == "0.50.0"
    cases = weights()
    assert set(noted["digests"]) == set(cases) and len(cases) == 96
    assert [name for name, weight in cases.items() if ours(weight) != noted["digests"][name]] == []


@pytest.mark.skipif(not is_installed(), reason="bitsandbytes is not installed")
def test_codes_scales_and_weights_are_what_the_installed_bitsandbytes_makes():
    for seed in range(20):
        weight = torch.randn(96, 320, generator=torch.Generator().manual_seed(seed)) * 10.0 ** -(seed % 4)
        assert ours(weight) == asked(weight)


@pytest.mark.skipif(not is_installed(), reason="bitsandbytes is not installed")
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_its_kernel_makes_the_same_weights_of_our_codes(dtype):
    assert has_bitsandbytes()
    for shape in ((64, 64), (33, 66), (5, 1280)):
        quantized = quantize_nf4(torch.randn(*shape, generator=torch.Generator().manual_seed(0)))
        found = by_bitsandbytes(quantized, torch.empty(shape, dtype=dtype))
        assert torch.equal(found, dequantize_nf4(quantized, torch.empty(shape, dtype=dtype)))
