"""The fused attention kernels: values and gradients of the reference, for every kind of attention."""

import pytest
import torch

from fledge.ops.attention import attend, attend_gradient, reference_attend
from fledge.ops.buffers import Buffers
from fledge.ops.plan import Document, Shape, plan_attention
from tests.fused.devices import DEVICE, DTYPES, IS_GPU, IS_INTERPRETED, needs_kernels
from tests.unit.ops.near import assert_near, assert_no_worse, normal

pytestmark = needs_kernels
SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625], device=DEVICE)
TABLE = normal(4, 2 * 3000, seed=9).to(DEVICE)
PLAIN = [Document(0, 5), Document(5, 45), Document(45, 46), Document(46, 120)]
SHARED = [
    Document(0, 10),
    Document(10, 50, ((0, 10),)),
    Document(50, 60, ((0, 10),)),
    Document(60, 100, ((0, 10), (10, 50))),
    Document(100, 110, ((0, 10), (50, 60))),
]
LONG = [Document(0, 1), Document(1, 700), Document(700, 1000), Document(1000, 2300, ((1, 700),)), Document(2300, 2332)]
MANY = [Document(0, 90), *[Document(90 + 50 * n, 140 + 50 * n, ((0, 90),)) for n in range(60)]]
ACROSS = [
    Document(0, 7, ((0, 40),), is_across=True),
    Document(7, 50, ((40, 45),), is_across=True),
    Document(50, 60, ((40, 45),), is_across=True),
]


def alibi(length, device):
    return SLOPES[:, None].to(device) * torch.arange(length, device=device)[None]


def relative(distance):
    return TABLE[:, distance + TABLE.shape[1] // 2]


def whole(width, **kinds):
    """Four heads that share nothing."""
    return Shape(4, 1, width, width**-0.5, **kinds)


KINDS = {
    "plain": (PLAIN, Shape(2, 1, 8, 8**-0.5)),
    "groups": (PLAIN, Shape(2, 3, 16, 0.25)),
    "odd width": (PLAIN, Shape(2, 2, 24, 0.2)),
    "capped": (PLAIN, Shape(2, 2, 16, 0.25, softcap=3.0)),
    "short window": (PLAIN, Shape(2, 2, 16, 0.25, window=7)),
    "long window": (PLAIN, Shape(1, 2, 16, 0.25, window=40)),
    "alibi": (PLAIN, whole(16, alibi=alibi)),
    "relative": (PLAIN, whole(16, relative=relative)),
    "shared": (SHARED, Shape(2, 2, 16, 0.25)),
    "shared, alibi": (SHARED, whole(16, alibi=alibi)),
    "shared, window": (SHARED, Shape(2, 2, 16, 0.25, window=12)),
    "shared, window, capped": (SHARED, Shape(2, 2, 16, 0.25, window=30, softcap=2.0)),
}
LARGE = {
    "long": (LONG, Shape(2, 2, 64, 0.125)),
    "long, wide": (LONG, Shape(2, 4, 128, 128**-0.5)),
    "long, widest, capped, window": (LONG, Shape(1, 2, 256, 1 / 16, softcap=50.0, window=200)),
    "long, odd": (LONG, Shape(2, 1, 80, 80**-0.5)),
    "long, alibi": (LONG, whole(64, alibi=alibi)),
    "long, relative": (LONG, whole(64, relative=relative)),
    "many that see the same": (MANY, Shape(1, 7, 64, 0.125)),
}
EVERY = KINDS | ({} if IS_INTERPRETED else LARGE)


def inputs(documents, shape, dtype, *, sources=None):
    count = max(document.end for document in documents)
    keys = sources or count
    sizes = [(count, shape.kv_heads, shape.groups, shape.head_dim), *[(keys, shape.kv_heads, shape.head_dim)] * 2]
    return [normal(*size, seed=seed).to(DEVICE, dtype) for seed, size in enumerate(sizes)]


def by_us(qkv, do, documents, shape, *, is_causal=True):
    plan, buffers = plan_attention(documents, heads=4, is_causal=is_causal), Buffers(DEVICE)
    out, is_added = torch.full_like(qkv[0], float("nan")), documents[0].is_across
    heads = shape.kv_heads * shape.groups
    sums = torch.full((heads, len(out)), float("nan"), device=DEVICE)
    attend(qkv, shape=shape, plan=plan, buffers=buffers, out=out, sums=sums)
    into = [torch.full_like(x, 1.0 if is_added and x.dim() == 3 else float("nan")) for x in qkv]
    attend_gradient(do, qkv, shape=shape, plan=plan, buffers=buffers, into=into, kept=(out, sums))
    return [out, into[0], *(x - 1.0 if is_added else x for x in into[1:])]


def by_reference(qkv, do, documents, shape, *, is_causal=True):
    leaves = [x.clone().requires_grad_() for x in qkv]
    out = reference_attend(leaves, shape=shape, documents=documents, is_causal=is_causal)
    return [out.detach(), *torch.autograd.grad(out, leaves, do)]


def check(documents, shape, dtype, *, is_causal=True, sources=None):
    qkv = inputs(documents, shape, dtype, sources=sources)
    do = normal(*qkv[0].shape, seed=5).to(DEVICE, dtype)
    found = by_us(qkv, do, documents, shape, is_causal=is_causal)
    exact = by_reference([x.float() for x in qkv], do.float(), documents, shape, is_causal=is_causal)
    if dtype == torch.float32:
        assert_near(found, exact)
    else:
        assert_no_worse(found, by_reference(qkv, do, documents, shape, is_causal=is_causal), exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", EVERY)
def test_causal_attention_is_the_references(kind, dtype):
    check(*EVERY[kind], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [whole(16), whole(16, relative=relative)], ids=["plain", "relative"])
def test_an_encoder_sees_everything(shape, dtype):
    check(PLAIN, shape, dtype, is_causal=False)


@pytest.mark.parametrize("dtype", DTYPES[:1])
def test_keys_of_another_row_that_several_see_are_added_up(dtype):
    check(ACROSS, whole(16), dtype, is_causal=False, sources=45)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", ["groups", "shared", "shared, alibi", "shared, window, capped"])
def test_what_many_documents_see_may_be_summed_in_parts(kind, steps, dtype, monkeypatch):
    monkeypatch.setattr("fledge.ops.fused.layout.STEPS", steps)
    check(*KINDS[kind], dtype)


def test_the_parts_of_keys_of_another_row_are_added_up_too(monkeypatch):
    monkeypatch.setattr("fledge.ops.fused.layout.STEPS", 1)
    check(ACROSS, whole(16), torch.float32, is_causal=False, sources=45)


def test_queries_keys_and_values_may_lie_in_one_projection():
    count, heads, width = 120, 4, 16
    one = normal(count, heads, 3, width).to(DEVICE)
    apart = [one[:, :, 0, None], one[:, :, 1], one[:, :, 2]]
    do = normal(count, heads, 1, width, seed=5).to(DEVICE)
    together = by_us(apart, do, PLAIN, whole(width))
    assert_near(together, by_us([x.contiguous() for x in apart], do, PLAIN, whole(width)), within=1e-7)


@pytest.mark.skipif(IS_INTERPRETED, reason="one thread computes what is interpreted")
@pytest.mark.parametrize("kind", LARGE)
def test_the_same_input_gives_the_same_bits(kind):
    documents, shape = LARGE[kind]
    qkv = inputs(documents, shape, torch.bfloat16)
    do = normal(*qkv[0].shape, seed=5).to(DEVICE, torch.bfloat16)
    first, *others = [by_us(qkv, do, documents, shape) for _ in range(5)]
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@pytest.mark.skipif(IS_GPU or IS_INTERPRETED, reason="only a CPU's kernels choose their threads")
def test_the_number_of_threads_changes_no_bit():
    qkv = inputs(MANY, LARGE["many that see the same"][1], torch.bfloat16)
    do, before = normal(*qkv[0].shape, seed=5).to(torch.bfloat16), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(by_us(qkv, do, *LARGE["many that see the same"]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
