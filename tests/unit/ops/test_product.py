"""Products by float32 tiles: the exact sum rounded once, whatever the layout, and torch's own within its rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.ops import product
from fledge.ops.product import bmm, mm, must_widen, reference_mm, widened_mm

SIZES = st.integers(1, 40)


def laid_out(rows, columns, *, is_turned, dtype):
    return (torch.randn(columns, rows).t() if is_turned else torch.randn(rows, columns)).to(dtype)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(product, "TILE", 64)


@settings(max_examples=60, deadline=None)
@given(
    n=SIZES,
    k=SIZES,
    m=SIZES,
    turned=st.tuples(st.booleans(), st.booleans()),
    tile=st.sampled_from([1, 64, 1 << 20]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
    adds=st.sampled_from(["nothing", "row", "all", "itself"]),
)
def test_it_is_the_float32_sum_rounded_once(n, k, m, turned, tile, dtype, adds):
    a, b = (laid_out(*size, is_turned=t, dtype=dtype) for size, t in zip(((n, k), (k, m)), turned, strict=True))
    out = torch.randn(n, m).to(dtype)
    add = {"nothing": None, "row": torch.randn(m).to(dtype), "all": torch.randn(n, m).to(dtype), "itself": out}[adds]
    exact = a.double() @ b.double() + (0 if add is None else add.double())
    before, product.TILE = product.TILE, tile
    try:
        found = widened_mm(a, b, out=out, add=add)
    finally:
        product.TILE = before
    assert found.data_ptr() == out.data_ptr()
    step = torch.finfo(dtype).eps / 2
    assert ((found.double() - exact).abs() <= step * exact.abs() * 1.01 + 1e-4).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_torchs_own_product_within_its_rounding(dtype, small_tiles):
    a, b, add = torch.randn(24, 48).to(dtype), torch.randn(48, 33).to(dtype), torch.randn(24, 33).to(dtype)
    ours, theirs = (f(a, b, out=torch.empty_like(add), add=add) for f in (widened_mm, reference_mm))
    torch.testing.assert_close(ours, theirs, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("is_widened", [True, False])
def test_batches_of_any_layout(is_widened, monkeypatch):
    monkeypatch.setattr(product, "must_widen", lambda *_: is_widened)
    a, b = torch.randn(3, 7, 5).bfloat16().mT, torch.randn(3, 7, 6).bfloat16()
    found = bmm(a, b, out=torch.empty(3, 5, 6, dtype=torch.bfloat16))
    torch.testing.assert_close(found.float(), a.float() @ b.float(), rtol=8e-3, atol=8e-3)


def test_float32_and_devices_with_kernels_of_their_own_are_left_alone():
    assert not must_widen(torch.float32, "cpu")
    assert not must_widen(torch.bfloat16, "cuda")
    a, b, out = torch.randn(4, 5), torch.randn(5, 6), torch.empty(4, 6)
    assert torch.equal(mm(a, b, out=out), a @ b)


def test_memory_that_is_used_again_holds_nothing_over(small_tiles):
    """A large product, then a small one, then the large one again: the same bits."""
    a, b = torch.randn(30, 40).bfloat16(), torch.randn(40, 50).bfloat16()
    first = widened_mm(a, b, out=torch.empty(30, 50).bfloat16(), add=None)
    widened_mm(a[:2, :3], b[:3, :4], out=torch.empty(2, 4).bfloat16(), add=None)
    assert torch.equal(first, widened_mm(a, b, out=torch.empty(30, 50).bfloat16(), add=None))
