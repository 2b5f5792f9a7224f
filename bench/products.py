"""What a bfloat16 product costs on this CPU: torch's own, by float32 tiles, and in float32.

    python bench/products.py [--rows 128] [--tile 4]

GFLOP/s of x W^T and of dy W for shapes of BLOOM-560m, best of three; `--tile` is a tile's size in float32, in MiB.
"""

import argparse
import time
from collections.abc import Callable

import torch

from fledge.ops import product
from fledge.ops.product import must_widen, reference_mm, widened_mm

SHAPES = ((3072, 1024), (4096, 1024), (1024, 4096))


def rate(work: Callable[[], object], flops: float) -> float:
    """GFLOP/s."""
    work()
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return flops / min(spent) / 1e9


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--rows", type=int, default=128)
    ap.add_argument("--tile", type=int, default=product.TILE >> 18)
    args = ap.parse_args()
    rows, product.TILE = args.rows, args.tile << 18
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{torch.get_num_threads()} threads, {capability}, {rows} rows, tiles of {args.tile} MiB")
    print(f"products in bfloat16 are widened here: {'yes' if must_widen(torch.bfloat16, 'cpu') else 'no'}\n")
    print("| W [O,I] | product | torch, bfloat16 | float32 tiles | float32 |\n| --- | --- | --- | --- | --- |")
    for outputs, inputs in SHAPES:
        weight = torch.randn(outputs, inputs).bfloat16()
        for name, b in (("x W^T", weight.t()), ("dy W", weight)):
            a, flops = torch.randn(rows, b.shape[0]).bfloat16(), 2.0 * rows * outputs * inputs
            out, wide, factor = a.new_empty(rows, b.shape[1]), a.float(), b.float()
            result = torch.empty(rows, b.shape[1])
            ways = (
                lambda a=a, b=b, out=out: reference_mm(a, b, out=out, add=None),
                lambda a=a, b=b, out=out: widened_mm(a, b, out=out, add=None),
                lambda a=wide, b=factor, out=result: torch.mm(a, b, out=out),
            )
            found = " | ".join(f"{rate(way, flops):.1f}" for way in ways)
            print(f"| {outputs}, {inputs} | {name} | {found} |", flush=True)


if __name__ == "__main__":
    main()
