"""The fused kernels beside the operations that they stand for, on one GPU, at the sizes of a step.

    python bench/fused.py [--tokens 16384] [--tilings]

Prints for each operation the milliseconds without kernels and with them, and what the faster one moves or computes a
second; for plain attention also torch's own flash attention. `--tilings` tries other tilings of attention.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import torch

from fledge.ops.activation import ACTIVATIONS, activate, activation_gradient
from fledge.ops.attention import attend, attend_gradient
from fledge.ops.buffers import Buffers
from fledge.ops.choice import unfused
from fledge.ops.cross_entropy import Head, head_cross_entropy
from fledge.ops.fused import attention as fused_attention
from fledge.ops.norm import Norm, add_norm_gradient, normalise
from fledge.ops.plan import Document, Shape, plan_attention
from fledge.ops.rotary import rotate

DEVICE, DTYPE = torch.device("cuda"), torch.bfloat16


def milliseconds(run: Callable[[], object], *, times: int = 8) -> float:
    """The median, after two warm runs."""
    spans = []
    for _ in range(times + 2):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        marks[0].record()
        run()
        marks[1].record()
        torch.cuda.synchronize()
        spans.append(marks[0].elapsed_time(marks[1]))
    return sorted(spans[2:])[times // 2]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=DTYPE)


def both(name: str, run: Callable[[], object], *, size: float, unit: str) -> None:
    """One row; `size` is what a run moves or computes, in units of 1e9."""
    with unfused():
        slow = milliseconds(run)
    fast = milliseconds(run)
    print(
        f"| {name} | {slow:.3f} | {fast:.3f} | {slow / fast:.1f} x | {size / min(slow, fast):,.1f} {unit} |", flush=True
    )


def operations(tokens: int) -> None:
    """Llama-2-7b's."""
    buffers, hidden, inner = Buffers(DEVICE, rows=tokens), 4096, 11008
    x, dy, out = (random(tokens, hidden) for _ in range(3))
    norm = Norm("rms", torch.ones(hidden, device=DEVICE), None, 1e-5)
    moved = 2 * tokens * hidden / 1e9 * 1e3
    both("RMS norm", lambda: normalise(x, norm, out=out, buffers=buffers), size=2 * moved, unit="GB/s")
    both(
        "its gradient", lambda: add_norm_gradient(out, dy, x=x, norm=norm, buffers=buffers), size=4 * moved, unit="GB/s"
    )
    silu = next(a for a in ACTIVATIONS if a.name == "silu")
    gate, up, given, other = (random(tokens, inner) for _ in range(4))
    moved = 2 * tokens * inner / 1e9 * 1e3
    both("gated SiLU", lambda: activate(silu, gate, up=up, out=other), size=3 * moved, unit="GB/s")
    both(
        "its gradients",
        lambda: activation_gradient(silu, given, x=gate, up=up, dup=other),
        size=5 * moved,
        unit="GB/s",
    )
    heads, angles = random(tokens, 32, 1, 128), torch.randn(tokens, 128, device=DEVICE)
    turns = angles.cos(), angles.sin()
    moved = 2 * tokens * hidden / 1e9 * 1e3
    both("rotary", lambda: rotate(heads, turns, buffers=buffers), size=2 * moved, unit="GB/s")
    head, labels = Head(random(32000, hidden)), torch.randint(32000, (tokens // 2,), device=DEVICE)
    states = x[: tokens // 2].clone().requires_grad_()
    work = 4 * tokens // 2 * hidden * 32000 / 1e9
    both(
        "loss and its gradient",
        lambda: head_cross_entropy(states, labels, head=head, buffers=buffers),
        size=work,
        unit="TFLOP/s",
    )


def packed(lengths: list[int]) -> list[Document]:
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return [Document(end - length, end) for end, length in zip(ends, lengths, strict=True)]


class Case:
    """Attention of some documents, by kernels or without."""

    def __init__(self, documents: list[Document], shape: Shape) -> None:
        self.shape, self.documents, self.count = shape, documents, documents[-1].end
        self.q = random(self.count, shape.kv_heads, shape.groups, shape.head_dim)
        self.k, self.v = (random(self.count, shape.kv_heads, shape.head_dim) for _ in range(2))
        self.do, self.out, self.dq = (random(*self.q.shape) for _ in range(3))
        self.dk, self.dv = (random(*self.k.shape) for _ in range(2))
        self.heads, self.buffers = shape.kv_heads * shape.groups, Buffers(DEVICE)
        self.sums = torch.empty(self.heads, self.count, device=DEVICE)
        self.plan = plan_attention(documents, heads=self.heads)
        self.work = 2 * self.heads * shape.head_dim * sum((d.end - d.start) ** 2 for d in documents) / 1e9

    def forward(self, sums: torch.Tensor | None) -> None:
        qkv = self.q, self.k, self.v
        attend(qkv, shape=self.shape, plan=self.plan, buffers=self.buffers, out=self.out, sums=sums)

    def backward(self, sums: torch.Tensor | None) -> None:
        attend_gradient(
            self.do,
            (self.q, self.k, self.v),
            shape=self.shape,
            plan=self.plan,
            buffers=self.buffers,
            into=(self.dq, self.dk, self.dv),
            kept=None if sums is None else (self.out, sums),
        )


def attention(name: str, case: Case) -> None:
    for part, run, factor in (("", case.forward, 1.0), (", gradient", case.backward, 2.5)):
        slow, fast = milliseconds(lambda run=run: run(None), times=2), milliseconds(lambda run=run: run(case.sums))
        rate = f"{factor * case.work / fast:,.0f} TFLOP/s"
        print(f"| attention, {name}{part} | {slow:.3f} | {fast:.3f} | {slow / fast:.1f} x | {rate} |", flush=True)


def flash(name: str, case: Case) -> None:
    """torch's own, where it takes this kind."""
    lengths = torch.tensor([0, *(d.end for d in case.documents)], device=DEVICE, dtype=torch.int32)
    q, k, v, do = (x.reshape(case.count, -1, case.shape.head_dim) for x in (case.q, case.k, case.v, case.do))
    longest, scale = max(d.end - d.start for d in case.documents), case.shape.scale

    def forward():
        return torch.ops.aten._flash_attention_forward(
            q, k, v, lengths, lengths, longest, longest, 0.0, True, False, scale=scale
        )

    out, sums, seed, offset, _ = forward()

    def backward():
        torch.ops.aten._flash_attention_backward(
            do, q, k, v, out, sums, lengths, lengths, longest, longest, 0.0, True, seed, offset, scale=scale
        )

    for part, run, factor in (("", forward, 1.0), (", gradient", backward, 2.5)):
        spent = milliseconds(run)
        rate = f"{factor * case.work / spent:,.0f} TFLOP/s"
        print(f"| torch's flash attention, {name}{part} | - | {spent:.3f} | - | {rate} |", flush=True)


def tilings(name: str, case: Case, kind: str) -> None:
    """Seconds of other tilings; the first is the one in use."""
    width = next(w for w in fused_attention.TILINGS[kind] if case.shape.head_dim <= w)
    used = fused_attention.TILINGS[kind][width]
    tried = [
        used,
        replace(used, warps=12 - used.warps),
        replace(used, queries=64, keys=64),
        replace(used, queries=128, keys=128, warps=8),
        replace(used, keys=64, viewing=64),
        replace(used, keys=64, viewing=64, queries=64, warps=4),
        replace(used, seen=32),
        replace(used, seen=128),
        replace(used, viewing=64),
    ]
    for tiling in dict.fromkeys(tried):
        with patch.dict(fused_attention.TILINGS[kind], {width: tiling}):
            case.plan.layouts.clear()
            try:
                spent = [milliseconds(lambda run=run: run(case.sums)) for run in (case.forward, case.backward)]
            except Exception as error:
                print(tiling, type(error).__name__)
                continue
            print(f"{name}: {spent[0]:.3f} {spent[1]:.3f} {tiling}", flush=True)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--tokens", type=int, default=16384)
    ap.add_argument("--tilings", action="store_true")
    args = ap.parse_args()
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    plain = Shape(32, 1, 128, 128**-0.5)
    long, short = packed([2048] * (args.tokens // 2048)), packed([40 + 7 * n % 150 for n in range(args.tokens // 112)])
    slopes = torch.rand(16, 1, device=DEVICE)
    bloom = Shape(16, 1, 64, 0.125, alibi=lambda length, device: slopes * torch.arange(length, device=device))
    cases = {"2,048": Case(long, plain), "short rows": Case(short, plain), "short rows, ALiBi": Case(short, bloom)}
    if args.tilings:
        tilings("2,048", cases["2,048"], "half")
        tilings("short rows", cases["short rows"], "half")
        return
    print(f"{torch.cuda.get_device_name()}, {args.tokens} tokens, {DTYPE}\n")
    print("| operation | without, ms | fused, ms | ratio | rate |\n| --- | --- | --- | --- | --- |")
    operations(args.tokens)
    for name, case in cases.items():
        attention(name, case)
        if case.shape.alibi is None:
            flash(name, case)


if __name__ == "__main__":
    main()
