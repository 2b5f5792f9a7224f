"""Weights in FP8 by blocks, as DeepSeek publishes them."""

import torch

BLOCK = 128
SETTINGS = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]}


def in_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [O,I], scales of blocks, and the weight [O,I] that they stand for."""
    rows, columns = weight.shape
    blocks = weight.view(-1, min(rows, BLOCK), columns // BLOCK, BLOCK)
    scale = blocks.abs().amax(dim=(1, 3)) / 448
    codes = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
    return codes.view(rows, columns), scale, (codes.float() * scale[:, None, :, None]).view(rows, columns)
