"""The fused attention kernels on documents and kinds of attention that no one chose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.ops.plan import Document, Shape
from tests.fused.devices import IS_INTERPRETED, needs_kernels
from tests.fused.test_attention import by_reference, by_us, inputs, relative
from tests.unit.ops.forests import forests, shapes
from tests.unit.ops.near import normal

pytestmark = [needs_kernels, pytest.mark.skipif(IS_INTERPRETED, reason="element by element it takes minutes")]
WIDTHS = st.integers(1, 40) | st.sampled_from([64, 80, 96, 128])


def far_from_reference(documents, shape, dtype, *, is_causal=True):
    """The farthest result, relative to the size of the values, or of all gradients: one alone may be but rounding."""
    qkv = inputs(documents, shape, dtype)
    do = normal(*qkv[0].shape, seed=5).to(qkv[0])
    found = by_us(qkv, do, documents, shape, is_causal=is_causal)
    wanted = by_reference([x.float() for x in qkv], do.float(), documents, shape, is_causal=is_causal)
    largest = max(x.norm().item() for x in wanted[1:])
    sizes = [wanted[0].norm().item(), *[largest] * 3]
    return max((a.float() - b).norm().item() / size for a, b, size in zip(found, wanted, sizes, strict=True))


@settings(max_examples=150, deadline=None)
@given(forests(), shapes(WIDTHS))
def test_causal_attention_is_the_references_for_any_documents(documents, shape):
    assert far_from_reference(documents, shape, torch.float32) <= 1e-5


@settings(max_examples=50, deadline=None)
@given(forests(), shapes(WIDTHS))
def test_in_bfloat16_it_is_so_within_rounding(documents, shape):
    assert far_from_reference(documents, shape, torch.bfloat16) <= 2e-2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=6), WIDTHS, st.booleans())
def test_an_encoder_sees_all_of_any_document(lengths, width, is_relative):
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    documents = [Document(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    shape = Shape(4, 1, width, width**-0.5, relative=relative if is_relative else None)
    assert far_from_reference(documents, shape, torch.float32, is_causal=False) <= 1e-5
