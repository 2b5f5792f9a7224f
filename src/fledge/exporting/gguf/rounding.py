"""Rounds one tensor from float32 to the number format of the file, once.

The formats and their blocks are those of ggml: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from typing import Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Format

from fledge.errors import ModelError

FileType = Literal["f16", "bf16", "q8_0"]

FILE_TYPES: dict[FileType, gguf.LlamaFileType] = {
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_FORMATS: dict[FileType, Format] = {"f16": Format.F16, "bf16": Format.BF16, "q8_0": Format.Q8_0}
_BYTES = {Format.F32: 4, Format.F16: 2, Format.BF16: 2}
_BLOCK, _BLOCK_BYTES = gguf.GGML_QUANT_SIZES[Format.Q8_0]


def format_of(shape: torch.Size, file_type: FileType, *, stays_exact: bool) -> Format:
    """How a tensor of this shape lies in the file: vectors and what `stays_exact` in float32, matrices as asked.

    A matrix whose rows do not fill blocks of 32 lies in float16 in a q8_0 file, as llama.cpp's own converter has it.
    """
    if len(shape) < 2 or stays_exact:
        return Format.F32
    if file_type == "q8_0" and shape[-1] % _BLOCK:
        return Format.F16
    return _FORMATS[file_type]


def size_of(shape: torch.Size, kind: Format) -> int:
    """Bytes of a tensor in the file."""
    values = shape.numel()
    return values // _BLOCK * _BLOCK_BYTES if kind is Format.Q8_0 else values * _BYTES[kind]


def rounded(tensor: torch.Tensor, kind: Format, *, where: str) -> np.ndarray:
    """The bytes of a float32 tensor in a number format, in the shape that the file has for them.

    Raises ModelError where a weight is no number, or is too large for the format.
    """
    if not bool(torch.isfinite(tensor).all()):
        cure = "nothing was written; the weights are not numbers: look where training went wrong"
        raise ModelError("a weight is not finite", where=where, cure=cure)
    found, is_finite = _bytes(tensor, kind)
    if not is_finite:
        cure = "nothing was written; export to bf16, which has the range of float32"
        raise ModelError(f"a weight is too large for {kind.name.lower()}", where=where, cure=cure)
    return found


def _bytes(tensor: torch.Tensor, kind: Format) -> tuple[np.ndarray, bool]:
    if kind is Format.F32:
        return tensor.numpy(), True
    if kind is Format.BF16:
        short = tensor.to(torch.bfloat16)
        return short.view(torch.int16).numpy().view(np.uint8), bool(torch.isfinite(short).all())
    if kind is Format.F16:
        half = tensor.to(torch.float16)
        return half.numpy(), bool(torch.isfinite(half).all())
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = gguf.quants.quantize(tensor.numpy(), kind)
    # each block begins with its scale, a float16
    scales = blocks.reshape(-1, _BLOCK_BYTES)[:, :2].copy().view(np.float16)
    return blocks, bool(np.isfinite(scales).all())
