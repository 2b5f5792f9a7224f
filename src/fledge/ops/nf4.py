"""Weights in 4 bits: NormalFloat codes in blocks of 64, the blocks' scales in 8 bits (QLoRA, arXiv 2305.14314).

The layout is bitsandbytes': a weight is taken as one row of n values, two codes to a byte, the first one in the high
half. Shapes: n values, B = n / 64 blocks, C = B / 256 blocks of scales, each rounded up.
"""

import functools
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch

from fledge.errors import ModelError

BLOCK, SCALES_BLOCK = 64, 256
CHUNK = 1 << 19
"""Values that are worked on at once: their float32 and codes stay in a CPU's cache."""
GPU_CHUNK = 1 << 26
STEPS = 65535
EVEN = 16
LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The 16 values of NormalFloat, as shares of a block's largest (the paper's appendix E)."""


@dataclass(frozen=True, slots=True, eq=False)
class Nf4:
    """A quantised weight."""

    codes: torch.Tensor
    """[n/2] uint8"""
    scale_codes: torch.Tensor
    """[B] uint8: each block's largest value, as an index into `scale_levels`"""
    scale_sizes: torch.Tensor
    """[C] float32: the largest of 256 of those, taken from their mean"""
    scale_mean: torch.Tensor
    """[1] float32"""


def quantize_nf4(weight: torch.Tensor) -> Nf4:
    """The codes of a weight of any shape. Raises ModelError where a weight is not finite.

    The mean of the scales is torch's own, whose last bit depends on the number of threads, as bitsandbytes' does.
    """
    flat = weight.reshape(-1)
    largest = _largest(flat)
    if not bool(torch.isfinite(largest).all()):
        raise ModelError("the base holds weights that are not finite", cure="fetch it again, or use another")
    codes = torch.empty(-(-flat.numel() // 2), dtype=torch.uint8, device=flat.device)
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        blocks = largest[start // BLOCK : -(-(start + part.numel()) // BLOCK)]
        codes[start // 2 : -(-(start + part.numel()) // 2)] = _codes(part.float(), blocks)
    mean = largest.mean()
    scale_codes, sizes = _scale_codes(largest - mean)
    return Nf4(codes, scale_codes, sizes, mean.reshape(1))


def scales_of(quantized: Nf4) -> torch.Tensor:
    """[B] float32: what the blocks' values are multiplied by."""
    levels = scale_levels().to(quantized.codes.device).index_select(0, quantized.scale_codes.int())
    sizes = quantized.scale_sizes.repeat_interleave(SCALES_BLOCK)[: levels.shape[0]]
    return levels.mul_(sizes).add_(quantized.scale_mean)


def dequantize_nf4(quantized: Nf4, out: torch.Tensor) -> torch.Tensor:
    """The weight into `out`, contiguous, of its shape and any number format: level times scale, rounded once.

    A byte is looked up as a pair of float32, in pieces that stay in the cache. On a GPU bitsandbytes does it, where it
    is installed.
    """
    flat, scales, device = out.view(-1), scales_of(quantized), out.device
    if device.type == "cuda" and has_bitsandbytes():
        return by_bitsandbytes(quantized, out)
    chunk = CHUNK if device.type == "cpu" else GPU_CHUNK
    table = _pairs().to(device)
    size = min(chunk, flat.numel() + BLOCK) // 2
    index = torch.empty(size, dtype=torch.int32, device=device)
    pairs = torch.empty(size, dtype=torch.int64, device=device)
    for start in range(0, flat.numel(), chunk):
        part = quantized.codes[start // 2 : (start + chunk) // 2]
        torch.index_select(table, 0, index[: len(part)].copy_(part), out=pairs[: len(part)])
        values = pairs[: len(part)].view(torch.float32)[: flat.numel() - start]
        _scale_blocks(values, scales[start // BLOCK :])
        flat[start : start + chunk].copy_(values)
    return out


@functools.cache
def has_bitsandbytes() -> bool:
    """Whether the package that has a kernel of its own for this is there; it is loaded where it is asked for."""
    return find_spec("bitsandbytes") is not None and bool(import_module("bitsandbytes"))


def by_bitsandbytes(quantized: Nf4, out: torch.Tensor) -> torch.Tensor:
    """dequantize_nf4 by bitsandbytes' kernel."""
    dequantize = torch.ops.bitsandbytes.dequantize_4bit
    return out.copy_(dequantize(quantized.codes[:, None], scales_of(quantized), BLOCK, "nf4", out.shape, out.dtype))


def reference_dequantize_nf4(quantized: Nf4, shape: tuple[int, ...]) -> torch.Tensor:
    """The same in float32, value by value."""
    numbers = torch.stack([quantized.codes >> 4, quantized.codes & 15], dim=1).reshape(-1).long()
    count = int(torch.tensor(shape).prod())
    levels = torch.tensor(LEVELS, device=quantized.codes.device)[numbers[:count]]
    return (levels * scales_of(quantized).repeat_interleave(BLOCK)[:count]).view(shape)


@functools.cache
def scale_levels() -> torch.Tensor:
    """[256] float32, rising: signed 8-bit numbers with a moving exponent, in which scales are held (arXiv 1511.04561).

    Seven decades from 1 down, the highest with 64 fractions and each next one with half as many, and 0 and 1.
    """
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32)
        middles = (edges[:-1] + edges[1:]) / 2.0
        values += (10 ** (decade - 6) * middles).tolist() + (-(10 ** (decade - 6)) * middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)


@functools.cache
def _pairs() -> torch.Tensor:
    """[256] for each byte its two levels, as the bits of two float32."""
    levels, byte = torch.tensor(LEVELS), torch.arange(256)
    return torch.stack([levels[byte >> 4], levels[byte & 15]], dim=1).contiguous().view(torch.int64).view(-1)


def _largest(flat: torch.Tensor) -> torch.Tensor:
    """[B] float32: the largest absolute value of each block."""
    whole = flat.numel() - flat.numel() % BLOCK
    parts = [flat[:whole].view(-1, BLOCK).abs().amax(dim=1).float()]
    if whole < flat.numel():
        parts.append(flat[whole:].abs().amax().float().clamp(min=1e-38)[None])
    return torch.cat(parts)


def _codes(values: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """[n/2] uint8 of whole blocks, the last one of which may be short.

    A value's level is the number of midpoints below it. Of 33 even steps each holds one midpoint at most, so a table
    says all but one comparison: a tenth of the time of a search for each value.
    """
    whole = values.numel() - values.numel() % BLOCK
    shares = torch.zeros(values.numel() + values.numel() % 2, device=values.device)
    inverse = 1.0 / largest.clamp(min=1e-38)
    torch.mul(
        values[:whole].view(-1, BLOCK), inverse[: whole // BLOCK, None], out=shares[:whole].view(-1, BLOCK)
    ).clamp_(-1, 1)
    torch.div(values[whole:], largest[-1], out=shares[whole : values.numel()]).clamp_(-1, 1)
    below, midpoint = (table.to(values.device) for table in _steps())
    step = (shares * EVEN).add_(EVEN).int()
    is_above = shares > midpoint.index_select(0, step)
    found = below.index_select(0, step).add_(is_above.view(torch.uint8))
    return (found[::2] << 4).bitwise_or_(found[1::2])


@functools.cache
def _steps() -> tuple[torch.Tensor, torch.Tensor]:
    """For each even step from -1 to 1 how many midpoints lie below it [33] uint8, and the next one [33] float32."""
    levels = torch.tensor(LEVELS)
    midpoints = (levels[:-1] + levels[1:]) / 2
    below = torch.bucketize(torch.arange(2 * EVEN + 1) / EVEN - 1.0, midpoints)
    following = torch.cat([midpoints, torch.tensor([torch.inf])])
    return below.to(torch.uint8), following[below]


def _scale_codes(scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The levels [B] uint8 of signed scales [B], and the largest of each 256 of them [C] float32.

    As bitsandbytes finds them on a CPU: the level nearest to the nearest of 65,536 even steps. Found by asking it for
    the level of many values; its own documents do not say.
    """
    padded = torch.nn.functional.pad(scales, (0, -scales.numel() % SCALES_BLOCK)).view(-1, SCALES_BLOCK)
    sizes = padded.abs().amax(dim=1)
    shares = (padded / torch.where(sizes > 0, sizes, 1.0)[:, None]).view(-1)[: scales.numel()]
    step = ((shares + 1.0) * (STEPS / 2) + 0.5).int().clamp_(0, STEPS)
    found = _level_of_step().to(scales.device).index_select(0, step)
    is_empty = (sizes == 0).repeat_interleave(SCALES_BLOCK)[: scales.numel()]
    return found.masked_fill_(is_empty, 0), sizes


@functools.cache
def _level_of_step() -> torch.Tensor:
    """[65536] uint8: the level nearest to each even step from -1 to 1."""
    levels = scale_levels()
    values = torch.arange(STEPS + 1, dtype=torch.float32) / (STEPS / 2) - 1.0
    above = torch.searchsorted(levels, values).clamp_(max=len(levels) - 1)
    below = (above - 1).clamp_(min=0)
    return torch.where((values - levels[below]) <= (levels[above] - values), below, above).to(torch.uint8)


def _scale_blocks(values: torch.Tensor, scales: torch.Tensor) -> None:
    """Multiply each block of `values`, whose last one may be short, by its scale, in place."""
    whole = values.numel() // BLOCK
    values[: whole * BLOCK].view(-1, BLOCK).mul_(scales[:whole, None])
    if whole * BLOCK < values.numel():
        values[whole * BLOCK :].mul_(scales[whole])
