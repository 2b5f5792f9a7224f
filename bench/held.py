"""What a base takes in memory as bfloat16, int8 and nf4, by its configuration alone; nothing is loaded.

python bench/held.py CONFIG.json...
"""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from fledge.models.quantize import linear_names
from fledge.ops.frozen_linear import tensors_of


def held_bytes(model: torch.nn.Module, kind: str) -> int:
    """Bytes of all parameters, those of the blocks' linears as `kind` holds them."""
    inside = {id(model.get_submodule(name)): model.get_submodule(name) for name in linear_names(model)}
    weights = [module.weight for module in inside.values()]
    rest = sum(p.numel() for p in model.parameters()) - sum(weight.numel() for weight in weights)
    if kind == "bfloat16":
        return 2 * (rest + sum(weight.numel() for weight in weights))
    parts = [tensors_of(kind, tuple(weight.shape)).values() for weight in weights]
    return 2 * rest + sum(torch.Size(shape).numel() * dtype.itemsize for each in parts for shape, dtype in each)


def main() -> None:
    print("| base | parameters | bfloat16 | int8 | nf4 |\n| --- | --- | --- | --- | --- |")
    for name in sys.argv[1:]:
        config = AutoConfig.from_pretrained(name)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with torch.device("meta"):
            model = kind.from_config(config)
        sizes = " | ".join(f"{held_bytes(model, kind) / 1e9:.2f} GB" for kind in ("bfloat16", "int8", "nf4"))
        count = sum(p.numel() for p in model.parameters())
        print(f"| {Path(name).stem if Path(name).is_file() else Path(name).name} | {count / 1e9:.2f} B | {sizes} |")


if __name__ == "__main__":
    main()
