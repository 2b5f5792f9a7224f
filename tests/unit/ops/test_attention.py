"""Attention of packed documents: what each row alone would see, whatever is shared, grouped and tiled."""

import contextlib
import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fledge.ops.attention import attend, attend_gradient, reference_attend
from fledge.ops.buffers import Buffers
from fledge.ops.grain import GRAIN
from fledge.ops.plan import TOGETHER, Document, Shape, plan_attention
from tests.unit.ops.forests import alibi, documents_of, forests, shapes
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, normal

CPU = torch.device("cpu")


@contextlib.contextmanager
def scores_of(number: int):
    """So many scores are held at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fledge.ops.plan.SCORES", number)
        yield


FOREST = documents_of((9, 40, 3, 70, 5, 33, 6, 7, 4, 8), (None, 0, 0, 0, 1, 1, 4, 4, 4, 4))
"""Prefixes within prefixes, lengths on both sides of the grain, and four alike."""


def inputs_of(documents, shape: Shape, *, dtype: torch.dtype = torch.float32, seed: int = 0):
    """do, and (q, k, v) as views of one projection, which holds for each key/value head its queries, key and value."""
    width, heads = documents[-1].end, (shape.kv_heads, shape.groups + 2, shape.head_dim)
    whole = normal(width, *heads, seed=seed, dtype=dtype)
    do = normal(width, shape.kv_heads, shape.groups, shape.head_dim, seed=seed + 1, dtype=dtype)
    return do, (whole[:, :, : shape.groups], whole[:, :, -2], whole[:, :, -1])


def by_us(do, qkv, documents, shape: Shape, *, buffers: Buffers | None = None, plan=None) -> list[torch.Tensor]:
    """What attention gives, and the gradients of q, k and v."""
    buffers = buffers or Buffers(CPU)
    plan = plan or plan_attention(documents, heads=shape.kv_heads * shape.groups)
    out, *into = (torch.full_like(part, float("nan")) for part in (do, *qkv))
    assert attend(qkv, shape=shape, plan=plan, buffers=buffers, out=out) is out
    attend_gradient(do, qkv, shape=shape, plan=plan, buffers=buffers, into=tuple(into))
    return [out, *into]


def by_reference(do, qkv, documents, shape: Shape) -> list[torch.Tensor]:
    leaves = tuple(part.detach().clone().requires_grad_() for part in qkv)
    out = reference_attend(leaves, shape=shape, documents=documents)
    return [out.detach(), *torch.autograd.grad(out, leaves, do)]


@settings(max_examples=80, deadline=None)
@given(forests(), shapes(), st.sampled_from([1, 20_000, 1_000_000]))
def test_values_and_gradients_are_the_references_for_any_documents(documents, shape, scores):
    do, qkv = inputs_of(documents, shape)
    with scores_of(scores):
        found = by_us(do, qkv, documents, shape)
    wanted = by_reference(do, qkv, documents, shape)
    # Where a query sees one key, its gradient is nothing but rounding: it is compared with what gradients are there.
    size = max(part.norm() for part in wanted[1:])
    assert_near(found[:1], wanted[:1])
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        assert (ours - theirs).norm() <= 1e-5 * size


def seen_rows(documents) -> list[torch.Tensor]:
    """Positions of each row that a document ends: the prefix's, then its own."""
    return [torch.cat([torch.arange(*part) for part in (*d.prefix, (d.start, d.end))]) for d in documents]


@settings(max_examples=25, deadline=None)
@given(forests(), st.integers(1, 3), st.integers(1, 3))
def test_a_document_has_what_torchs_attention_gives_its_row_alone(documents, kv_heads, groups):
    shape = Shape(kv_heads, groups, 8, scale=8**-0.5)
    do, (q, k, v) = inputs_of(documents, shape)
    out = by_us(do, (q, k, v), documents, shape)[0]
    rows = seen_rows(documents)
    assert len(rows) == len(documents)
    for document, row in zip(documents, rows, strict=True):
        queries = q[row].flatten(1, 2).transpose(0, 1)
        keys, values = (part[row].repeat_interleave(groups, dim=1).transpose(0, 1) for part in (k, v))
        alone = F.scaled_dot_product_attention(queries, keys, values, is_causal=True).transpose(0, 1)
        own = alone[document.prefix_length :].unflatten(1, (kv_heads, groups))
        assert_near([out[document.start : document.end]], [own])


SHAPES = {
    "plain": Shape(2, 1, 16, scale=0.25),
    "grouped": Shape(2, 3, 16, scale=0.25),
    "softcap": Shape(2, 2, 16, scale=0.5, softcap=2.0),
    "window": Shape(2, 2, 16, scale=0.25, window=11),
    "alibi": Shape(4, 1, 16, scale=0.25, alibi=functools.partial(alibi, 4)),
}


@pytest.mark.parametrize("scores", [1, 1_000_000])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", SHAPES)
def test_half_precision_is_no_worse_than_plain_torch(kind, dtype, scores):
    shape = SHAPES[kind]
    do, qkv = inputs_of(FOREST, shape, dtype=dtype)
    with scores_of(scores):
        found = by_us(do, qkv, FOREST, shape)
    exact = by_reference(do.float(), tuple(part.float() for part in qkv), FOREST, shape)
    assert {part.dtype for part in found} == {dtype}
    assert_no_worse(found, by_reference(do, qkv, FOREST, shape), exact)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_prefix_of_many_documents_loses_no_precision(dtype):
    """Its keys' gradient is a sum over all that continue it, of many groups."""
    lengths = tuple(1 + number * 7 % 90 for number in range(60))
    documents = documents_of((20, *lengths), (None, *[0] * 60))
    do, qkv = inputs_of(documents, SHAPES["plain"], dtype=dtype)
    found = by_us(do, qkv, documents, SHAPES["plain"])
    plain = by_reference(do, qkv, documents, SHAPES["plain"])
    exact = by_reference(do.float(), tuple(part.float() for part in qkv), documents, SHAPES["plain"])
    shared = [[part[:20] for part in parts] for parts in (found, plain, exact)]
    assert_no_worse(*shared)


@pytest.mark.parametrize("kind", SHAPES)
def test_tiles_change_nothing_but_rounding(kind):
    do, qkv = inputs_of(FOREST, SHAPES[kind])
    whole = by_us(do, qkv, FOREST, SHAPES[kind])
    with scores_of(1):
        tiled = by_us(do, qkv, FOREST, SHAPES[kind])
    assert_near(tiled, whole)


@pytest.mark.parametrize("kind", SHAPES)
def test_what_lies_in_the_buffers_does_not_matter(kind):
    do, qkv = inputs_of(FOREST, SHAPES[kind], dtype=torch.bfloat16)
    buffers = Buffers(CPU)
    with scores_of(20_000):
        before = by_us(do, qkv, FOREST, SHAPES[kind], buffers=buffers)
        for flat in buffers._flat.values():
            flat.fill_(float("nan"))
        after = by_us(do, qkv, FOREST, SHAPES[kind], buffers=buffers)
    assert len(buffers._flat) > 8
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("other", ["window", "softcap", "alibi", "grouped"])
def test_one_plan_serves_layers_that_differ(other):
    plan = plan_attention(FOREST, heads=6)
    for kind in ("plain", other, "plain"):
        do, qkv = inputs_of(FOREST, SHAPES[kind])
        found = by_us(do, qkv, FOREST, SHAPES[kind], plan=plan)
        assert_near(found, by_reference(do, qkv, FOREST, SHAPES[kind]))


LATE = documents_of((50, 5, 40, 10, 5), (None, 0, None, 2, 3))
"""The last one has as long a prefix as the second, which stands before what the last one continues."""


@settings(max_examples=60, deadline=None)
@given(forests(), st.integers(1, 8), st.sampled_from([1, 100_000, 1_000_000]))
@example(LATE, 2, 1_000_000)
def test_every_document_is_in_one_group_and_its_ancestors_are_in_groups_before(documents, heads, scores):
    with scores_of(scores):
        plan = plan_attention(documents, heads=heads)
    place = {document: number for number, group in enumerate(plan.groups) for document in group.documents}
    assert sum(len(group.documents) for group in plan.groups) == len(documents) == len(place)
    by_range = {(document.start, document.end): document for document in documents}
    assert all(place[by_range[part]] < place[document] for document in documents for part in document.prefix)
    assert {len(group.documents) for group in plan.groups} <= {1, TOGETHER}
    assert all(d.prefix_length == group.prefix for group in plan.groups for d in group.documents)
    assert all(d.end - d.start <= group.width for group in plan.groups for d in group.documents)


@pytest.mark.parametrize("length", [300, 900])
def test_memory_for_scores_does_not_grow_with_the_square_of_a_document(length):
    documents, shape, buffers = (Document(0, length),), Shape(2, 2, 8, scale=0.3), Buffers(CPU)
    do, qkv = inputs_of(documents, shape)
    with scores_of(200_000):
        by_us(do, qkv, documents, shape, buffers=buffers)
    held = buffers._flat["attention.s", torch.float32, "block"].numel()
    assert held <= max(200_000, 4 * GRAIN * (length + GRAIN))


@pytest.mark.parametrize("kind", ["plain", "alibi"])
@pytest.mark.parametrize("most", [0, 3_000_000])
def test_memory_for_masks_does_not_grow_with_the_square_of_a_document(kind, most, monkeypatch):
    monkeypatch.setattr("fledge.ops.attention.MASKS", most)
    held = []
    for length in (512, 2048):
        documents = (Document(0, length),)
        plan = plan_attention(documents, heads=4)
        do, qkv = inputs_of(documents, SHAPES[kind])
        with scores_of(200_000):
            by_us(do, qkv, documents, SHAPES[kind], plan=plan)
        storages = {mask.untyped_storage().data_ptr(): mask.untyped_storage().nbytes() for mask in plan.masks.values()}
        held.append(sum(storages.values()))
    assert held[1] <= max(5 * held[0], most)


def test_memory_does_not_grow_with_the_number_of_documents():
    shape, held = Shape(2, 2, 8, scale=0.3), []
    for count in (8, 80):
        documents, buffers = documents_of((30,) * count, (None,) * count), Buffers(CPU)
        do, qkv = inputs_of(documents, shape)
        by_us(do, qkv, documents, shape, buffers=buffers)
        held.append(sum(flat.numel() for flat in buffers._flat.values()))
    assert held[0] == held[1]
