"""Attention without causality: an encoder's documents see all of themselves, a decoder's see the encoder's."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.ops.attention import attend, attend_gradient, reference_attend
from fledge.ops.buffers import Buffers
from fledge.ops.plan import Document, Shape, plan_attention
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, normal

CPU = torch.device("cpu")


def relative(heads: int, distance: torch.Tensor) -> torch.Tensor:
    """A bias that tells before from after."""
    return torch.stack([torch.sin(distance.float() / (head + 2)) + 0.1 * head for head in range(heads)])


def spans(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def encoder_documents(lengths: tuple[int, ...]) -> tuple[Document, ...]:
    return tuple(Document(*span) for span in spans(lengths))


def across_documents(lengths: tuple[int, ...], seen: tuple[int, ...]) -> tuple[Document, ...]:
    """Document n of `lengths` sees document n of `seen`, or the first where there are fewer."""
    keys = spans(seen)
    pairs = [(span, keys[n] if n < len(keys) else keys[0]) for n, span in enumerate(spans(lengths))]
    return tuple(Document(*span, prefix=(key,), is_across=True) for span, key in pairs)


def inputs_of(queries: int, keys: int, shape: Shape, *, dtype: torch.dtype = torch.float32):
    heads, width = (shape.kv_heads, shape.groups), shape.head_dim
    do, q = (normal(queries, *heads, width, seed=seed, dtype=dtype) for seed in (0, 1))
    k, v = (normal(keys, shape.kv_heads, width, seed=seed, dtype=dtype) for seed in (2, 3))
    return do, (q, k, v)


def by_us(do, qkv, documents, shape: Shape) -> list[torch.Tensor]:
    buffers, plan = Buffers(CPU), plan_attention(documents, heads=shape.kv_heads * shape.groups, is_causal=False)
    out, dq = torch.full_like(do, float("nan")), torch.full_like(qkv[0], float("nan"))
    dk, dv = (torch.zeros_like(part) for part in qkv[1:])
    attend(qkv, shape=shape, plan=plan, buffers=buffers, out=out)
    attend_gradient(do, qkv, shape=shape, plan=plan, buffers=buffers, into=(dq, dk, dv))
    return [out, dq, dk, dv]


def by_reference(do, qkv, documents, shape: Shape) -> list[torch.Tensor]:
    leaves = tuple(part.detach().clone().requires_grad_() for part in qkv)
    out = reference_attend(leaves, shape=shape, documents=documents, is_causal=False)
    return [out.detach(), *torch.autograd.grad(out, leaves, do)]


lengths = st.lists(st.integers(1, 75), min_size=1, max_size=7).map(tuple)
tiles = pytest.mark.parametrize("scores", [1, 20_000, 1_000_000])


@tiles
@settings(max_examples=25, deadline=None)
@given(lengths=lengths, kv_heads=st.integers(1, 3), groups=st.integers(1, 2), has_bias=st.booleans())
def test_an_encoders_document_sees_all_of_itself_and_nothing_else(scores, lengths, kv_heads, groups, has_bias):
    bias = functools.partial(relative, kv_heads * groups) if has_bias else None
    shape = Shape(kv_heads, groups, 8, scale=0.6, relative=bias)
    do, qkv = inputs_of(sum(lengths), sum(lengths), shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fledge.ops.plan.SCORES", scores)
        found = by_us(do, qkv, encoder_documents(lengths), shape)
    _assert_near(found, by_reference(do, qkv, encoder_documents(lengths), shape))


@tiles
@settings(max_examples=25, deadline=None)
@given(lengths=lengths, seen=lengths)
def test_a_decoders_document_sees_its_own_of_the_encoder(scores, lengths, seen):
    shape, documents = Shape(2, 1, 8, scale=0.6), across_documents(lengths, seen)
    do, qkv = inputs_of(sum(lengths), sum(seen), shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fledge.ops.plan.SCORES", scores)
        found = by_us(do, qkv, documents, shape)
    _assert_near(found, by_reference(do, qkv, documents, shape))


def _assert_near(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    assert_near(found[:1], wanted[:1])
    size = max(part.norm() for part in wanted[1:])
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        assert (ours - theirs).norm() <= 1e-5 * size


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_no_worse_than_plain_torch(dtype):
    shape = Shape(4, 1, 16, scale=1.0, relative=functools.partial(relative, 4))
    documents = encoder_documents((40, 33, 7, 70))
    do, qkv = inputs_of(150, 150, shape, dtype=dtype)
    exact = by_reference(do.float(), tuple(part.float() for part in qkv), documents, shape)
    assert_no_worse(by_us(do, qkv, documents, shape), by_reference(do, qkv, documents, shape), exact)


def test_documents_of_like_size_share_one_product_whatever_they_see():
    plan = plan_attention(encoder_documents((33, 40, 50, 64, 20)), heads=2, is_causal=False)
    assert sorted(len(group.documents) for group in plan.groups) == [1, 4]
    assert {group.visible for group in plan.groups} == {(20,), (33, 40, 50, 64)}


def test_documents_together_see_as_much_as_alone():
    lengths, seen = (7, 20, 9, 31), (40, 33, 64, 50)
    shape, documents = Shape(2, 1, 8, scale=0.6), across_documents(lengths, seen)
    do, qkv = inputs_of(sum(lengths), sum(seen), shape)
    assert len(plan_attention(documents, heads=2, is_causal=False).groups) == 1
    _assert_near(by_us(do, qkv, documents, shape), by_reference(do, qkv, documents, shape))
