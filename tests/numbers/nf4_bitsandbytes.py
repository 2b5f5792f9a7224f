"""What bitsandbytes makes of set weights, as digests: `python -m tests.numbers.nf4_bitsandbytes` asks and writes them.

The digests let the agreement be tested where it is not installed, as in a plain development environment, which it
would make say things on import.
"""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).with_suffix(".json")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHAPES = ((64, 64), (128, 256), (7, 11), (33, 65), (300, 640), (1, 1), (5, 64 * 256), (512, 2048))


def weights() -> dict[str, torch.Tensor]:
    """By name: every shape in every number format; plain, of very uneven rows, all positive, and with empty blocks."""
    found = {}
    for number, shape in enumerate(SHAPES):
        draw = np.random.Generator(np.random.PCG64(number)).standard_normal(shape).astype(np.float32) * 0.1
        uneven = draw * np.exp(np.linspace(-6, 3, shape[0], dtype=np.float32))[:, None]
        holes = draw.copy()
        holes[: max(1, shape[0] // 2)] = 0
        for kind, values in {"plain": draw, "uneven": uneven, "positive": np.abs(draw), "holes": holes}.items():
            for name, dtype in DTYPES.items():
                found[f"{kind} {shape[0]}x{shape[1]} {name}"] = torch.from_numpy(values.copy()).to(dtype)
    return found


def digest(tensors: list[torch.Tensor]) -> str:
    """sha256 over the bytes of contiguous tensors."""
    parts = [tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def is_installed() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


def asked(weight: torch.Tensor) -> dict[str, str]:
    """The digests of bitsandbytes' codes, scales, and dequantised weights in each number format."""
    functional = importlib.import_module("bitsandbytes.functional")
    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    found = {
        "codes": digest([codes]),
        "scales": digest([state.absmax, state.state2.absmax, state.offset.reshape(1)]),
    }
    for name, dtype in DTYPES.items():
        state.dtype = dtype
        found[name] = digest([functional.dequantize_4bit(codes, state)])
    return found


def main() -> None:
    torch.set_num_threads(1)
    version = importlib.import_module("bitsandbytes").__version__
    digests = {name: asked(weight) for name, weight in weights().items()}
    FILE.write_text(json.dumps({"bitsandbytes": version, "digests": digests}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
