"""Rounding to q8_0 gives the bits of the gguf package, which are those of ggml."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fledge.errors import ModelError
from fledge.exporting.gguf.rounding import rounded

VALUES = st.floats(-6e4, 6e4, width=32, allow_subnormal=True)


@given(arrays(np.float32, st.sampled_from([(1, 32), (3, 64), (2, 3, 32)]), elements=VALUES))
def test_blocks_have_the_bits_of_the_package(values):
    expected = gguf.quants.quantize(values, Format.Q8_0)
    found = rounded(torch.from_numpy(values), Format.Q8_0, where="w")
    assert found.shape == expected.shape and found.tobytes() == expected.tobytes()


def test_weights_as_models_have_them_too():
    weights = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)) * 0.02
    weights[0] = 0
    expected = gguf.quants.quantize(weights.numpy(), Format.Q8_0)
    assert rounded(weights, Format.Q8_0, where="w").tobytes() == expected.tobytes()


def test_a_weight_that_is_too_large_for_a_scale_is_refused():
    with pytest.raises(ModelError, match="too large for q8_0"):
        rounded(torch.full((1, 32), 1e8), Format.Q8_0, where="w")
