"""The attention kernels compiled for every kind of card, on any machine: what a program takes must fit the card."""

import importlib.util
import os

import pytest
import torch

from fledge.ops.attention import Kept, Projections
from fledge.ops.buffers import Buffers
from fledge.ops.plan import Document, Shape, plan_attention

HAS_COMPILER = importlib.util.find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") != "1"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_COMPILER, reason="Triton is not there, or interprets")]
CARDS = {80: 166912, 86: 101376, 90: 232448}
"""Bytes of shared memory that a program may have, by compute capability: the CUDA C++ Programming Guide, table 24.
Those of 8.9 and 12.0 are as small as 8.6's.
"""
SHAPES = {
    "groups of 4, window": Shape(1, 4, 128, 128**-0.5, window=100),
    "heads of 256, capped": Shape(2, 2, 256, 1 / 16, softcap=50.0),
}
DOCUMENTS = [Document(0, 20), *[Document(20 + 100 * n, 120 + 100 * n, ((0, 20),)) for n in range(70)]]


class Launches:
    """Stands for a kernel and notes how it is called."""

    def __init__(self, kernel, found):
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid):
        return lambda *given, **named: self.found.append((self.kernel, given, named))


def kind(value):
    names = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32"}
    return names[value.dtype] if torch.is_tensor(value) else "fp32" if isinstance(value, float) else "i32"


def compiled(launch, capability):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, given, named = launch
    options = {name: named[name] for name in ("num_warps", "num_stages") if name in named}
    values = dict(zip(kernel.arg_names, given, strict=False)) | {k: v for k, v in named.items() if k not in options}
    chosen = {(at,): values[p.name] for at, p in enumerate(kernel.params) if p.is_constexpr}
    signature = {p.name: "constexpr" if p.is_constexpr else kind(values[p.name]) for p in kernel.params}
    # addresses and steps of 16 take vector copies, which is what takes the shared memory
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, p in enumerate(kernel.params)
        if signature[p.name].startswith("*") or (signature[p.name] == "i32" and values[p.name] % 16 == 0)
    }
    source = ASTSource(kernel, signature, chosen, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def launches(shape, monkeypatch, capability):
    from fledge.ops.fused import attention as fused_attention

    found = []
    for name in ("forward", "along", "of_keys", "of_queries", "join_keys"):
        kernel = getattr(fused_attention.kernels, name)
        monkeypatch.setattr(fused_attention.kernels, name, Launches(kernel, found))
    monkeypatch.setattr(fused_attention, "_shared_memory", lambda device: CARDS[capability])
    count = DOCUMENTS[-1].end
    q = torch.zeros(count, shape.kv_heads, shape.groups, shape.head_dim, dtype=torch.bfloat16)
    k, v = (torch.zeros(count, shape.kv_heads, shape.head_dim, dtype=torch.bfloat16) for _ in range(2))
    sums, out = torch.zeros(shape.kv_heads * shape.groups, count), torch.empty_like(q)
    plan = plan_attention(DOCUMENTS, heads=4)
    qkv: Projections = (q, k, v)
    kept: Kept = (out, sums)
    common = {"shape": shape, "plan": plan, "buffers": Buffers(q.device)}
    fused_attention.attend(qkv, **common, out=out, sums=sums)
    fused_attention.attend_gradient(q, qkv, **common, kept=kept, into=qkv)
    return found


@pytest.mark.parametrize("capability", CARDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_program_fits_the_card(shape, capability, monkeypatch):
    found = launches(shape, monkeypatch, capability)
    assert len(found) == 5
    for launch in found:
        assert compiled(launch, capability).metadata.shared <= CARDS[capability], launch[0].__name__
