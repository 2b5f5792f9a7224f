"""The head's loss: what torch computes from all logits at once, chunk by chunk, and its gradient in the same pass."""

import contextlib
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.ops.buffers import Buffers
from fledge.ops.cross_entropy import Head, _chunk_rows, head_cross_entropy, sum_cross_entropy
from fledge.ops.grain import GRAIN
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, distance, normal

CPU = torch.device("cpu")


@contextlib.contextmanager
def chunks_of(*, num_bytes: int, wide: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fledge.ops.cross_entropy.CHUNK_BYTES", num_bytes)
        patch.setattr("fledge.ops.cross_entropy.WIDE_BYTES", wide)
        yield


def head_of(
    vocabulary: int, width: int, *, bias: bool = False, softcap: float | None = None, dtype=torch.float32
) -> Head:
    weight = normal(vocabulary, width, seed=1, scale=2 * width**-0.5, dtype=dtype)
    return Head(weight, normal(vocabulary, seed=2, dtype=dtype) if bias else None, softcap)


def labels_of(count: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(0, vocabulary, (count,), generator=torch.Generator().manual_seed(count))


def by_us(hidden: torch.Tensor, labels: torch.Tensor, head: Head, *, factor: float = 1.0, buffers=None):
    """The loss, and the gradient of `factor` times it."""
    hidden = hidden.clone().requires_grad_()
    loss = head_cross_entropy(hidden, labels, head=head, buffers=buffers or Buffers(CPU))
    (gradient,) = torch.autograd.grad(loss * factor, hidden)
    return loss.detach(), gradient


def by_torch(hidden: torch.Tensor, labels: torch.Tensor, head: Head, *, factor: float = 1.0):
    hidden = hidden.clone().requires_grad_()
    logits = F.linear(hidden, head.weight, head.bias)
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    loss = sum_cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(loss * factor, hidden)
    return loss.detach(), gradient


def widened(head: Head) -> Head:
    return Head(head.weight.float(), None if head.bias is None else head.bias.float(), head.softcap)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 150),
    vocabulary=st.integers(2, 90),
    width=st.integers(1, 20),
    bias=st.booleans(),
    softcap=st.sampled_from([None, 1.5, 30.0]),
    num_bytes=st.sampled_from([1, 20_000, 1 << 20]),
    wide=st.sampled_from([1, 3_000, 1 << 20]),
)
def test_loss_and_gradient_are_torchs_in_chunks_of_any_size(count, vocabulary, width, bias, softcap, num_bytes, wide):
    hidden, labels = normal(count, width), labels_of(count, vocabulary)
    head = head_of(vocabulary, width, bias=bias, softcap=softcap)
    with chunks_of(num_bytes=num_bytes, wide=wide):
        found = by_us(hidden, labels, head, factor=0.37)
    wanted = by_torch(hidden, labels, head, factor=0.37)
    assert_near(found[:1], wanted[:1])
    size = (
        2 * 0.37 * head.weight.abs().max() * (count * width) ** 0.5
    )  # what cancels out in a gradient that is near zero
    assert (found[1] - wanted[1]).norm() <= 1e-5 * wanted[1].norm() + 1e-6 * size


def test_without_gradients_the_loss_is_the_same():
    hidden, labels, head = normal(70, 16), labels_of(70, 50), head_of(50, 16, bias=True, softcap=3.0)
    with_gradient, _ = by_us(hidden, labels, head)
    with chunks_of(num_bytes=10_000, wide=1_000):
        alone = head_cross_entropy(hidden, labels, head=head, buffers=Buffers(CPU))
    assert not alone.requires_grad
    assert alone.dtype == torch.float32
    assert_near([alone], [with_gradient], within=1e-6)


def test_logits_far_from_zero_lose_no_precision():
    """A model that is sure: the label's probability is near 1 in some rows and far below float32's least in others."""
    hidden, labels = normal(40, 16, scale=60.0), labels_of(40, 30)
    head = head_of(30, 16)
    labels[::2] = F.linear(hidden, head.weight).argmax(-1)[::2]
    exact = by_torch(hidden.double(), labels, Head(head.weight.double()))
    wanted = F.cross_entropy(F.linear(hidden.double(), head.weight.double()), labels, reduction="sum")
    loss, gradient = by_us(hidden, labels, head)
    assert_near([loss], [wanted])
    assert_near([gradient], [exact[1]])


def test_a_loss_near_zero_is_not_lost_in_the_logits():
    hidden = normal(64, 16, scale=4.0)
    weight = torch.cat([hidden, normal(10, 16)])
    labels = torch.arange(64)
    ours, _ = by_us(hidden, labels, Head(weight))
    exact = F.cross_entropy(F.linear(hidden.double(), weight.double()), labels, reduction="sum")
    plain, _ = by_torch(hidden, labels, Head(weight))
    assert_no_worse([ours], [plain], [exact])


@pytest.mark.parametrize("softcap", [None, 4.0])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_no_worse_than_plain_torch(dtype, softcap):
    hidden, labels = normal(200, 64, dtype=dtype), labels_of(200, 500)
    head = head_of(500, 64, bias=True, softcap=softcap, dtype=dtype)
    with chunks_of(num_bytes=40_000, wide=20_000):
        found = by_us(hidden, labels, head)
    exact = by_torch(hidden.float(), labels, widened(head))
    assert found[1].dtype == dtype
    assert_no_worse(found, by_torch(hidden, labels, head), exact)


def test_in_float16_what_rare_tokens_give_is_not_lost():
    """Probabilities of 1/V, and a mean over many tokens that a scaler brings back to float16's range at the end."""
    hidden, labels = normal(64, 32, scale=0.3, dtype=torch.float16), labels_of(64, 20_000)
    head = head_of(20_000, 32, dtype=torch.float16)
    _, exact = by_torch(hidden.float(), labels, widened(head))
    _, plain = by_torch(hidden, labels, head)
    _, found = by_us(hidden, labels, head)
    assert distance(found, exact) < 1e-3
    assert distance(found, exact) < distance(plain, exact)


@pytest.mark.parametrize("factor", [2.0**8, 2.0**-8])
def test_in_float16_the_gain_within_does_not_show(factor):
    hidden, labels, head = (
        normal(40, 16, dtype=torch.float16),
        labels_of(40, 100),
        head_of(100, 16, dtype=torch.float16),
    )
    _, found = by_us(hidden, labels, head, factor=factor)
    _, exact = by_torch(hidden.float(), labels, widened(head), factor=factor)
    assert found.isfinite().all()
    assert distance(found, exact) < 5e-3


@given(st.integers(1, 5000), st.integers(1, 3000), st.sampled_from([1, 30_000, 200_000]))
def test_chunks_are_as_few_as_hold_what_they_may_and_alike(count, row_bytes, num_bytes):
    rows = _chunk_rows(count, row_bytes, most=num_bytes)
    most = max(GRAIN, num_bytes // row_bytes // GRAIN * GRAIN)
    chunks = math.ceil(count / rows)
    assert rows % GRAIN == 0
    assert rows <= most
    assert chunks <= math.ceil(count / most)
    assert count - rows * (chunks - 1) > rows - GRAIN * chunks


def test_what_lies_in_the_buffers_does_not_matter():
    hidden, labels, head = normal(70, 16), labels_of(70, 50), head_of(50, 16, softcap=3.0)
    buffers = Buffers(CPU)
    with chunks_of(num_bytes=10_000, wide=1_000):
        before = by_us(hidden, labels, head, buffers=buffers)
        for flat in buffers._flat.values():
            flat.fill_(float("nan"))
        after = by_us(hidden, labels, head, buffers=buffers)
    assert len(buffers._flat) == 4
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_labels_that_are_ignored_add_nothing_to_the_plain_sum():
    logits, labels = normal(9, 20), labels_of(9, 20)
    some = labels.clone()
    some[::3] = -100
    kept = some != -100
    assert_near([sum_cross_entropy(logits, some)], [sum_cross_entropy(logits[kept], labels[kept])], within=1e-6)
    assert sum_cross_entropy(logits.bfloat16(), labels).dtype == torch.float32
