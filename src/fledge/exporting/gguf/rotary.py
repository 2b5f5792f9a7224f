"""Scaled rotary positions in GGUF: numbers for linear and yarn, and for Llama 3's way a divisor for each frequency.

llama.cpp (ggml_rope_ext) divides the frequency of each pair of a head by what the tensor rope_freqs says, where its
graph reads that tensor, and computes linear and yarn from the numbers by the formulas that transformers has.
"""

from collections.abc import Mapping
from typing import Any

import gguf
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from fledge.exporting.gguf.family import Config, rope_theta, rotary_width

DIVISORS = f"{gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS]}.weight"
"""The tensor's name in the file."""


def describe_scaling(writer: gguf.GGUFWriter, rope: Mapping[str, Any]) -> None:
    """The numbers of linear and yarn, of a configuration's `rope_parameters`; nothing for other kinds."""
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def divisors(config: Config) -> dict[str, torch.Tensor]:
    """Of Llama 3's way the divisor of each pair's frequency, by the tensor's name in the file; else nothing.

    [half the rotated width of a head], float32: the plain frequencies divided by those that transformers computes.
    """
    if config.rope_parameters.get("rope_type") != "llama3":
        return {}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    width = rotary_width(config)
    exponents = torch.arange(0, width, 2, dtype=torch.int64).float() / width
    return {DIVISORS: 1.0 / rope_theta(config) ** exponents / scaled}
