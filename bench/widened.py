"""Runs another tool's script with its frozen linears taken by float32 tiles, on a CPU without bfloat16 instructions.

    python bench/widened.py SCRIPT [its own arguments]

The values are the script's own within that rounding; torch's own products would take hours there (bench/log.md). Its
times say nothing of the tool.
"""

import runpy
import sys

import torch

from fledge.ops.wide_linear import wide_linears


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    del sys.argv[0]
    with wide_linears(torch.bfloat16, "cpu"):
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
