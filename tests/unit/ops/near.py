"""How near two tensors are, relative to their size, and how near rounding alone brings them."""

import math
from collections.abc import Iterable

import torch

HALVES = (torch.bfloat16, torch.float16)
FACTOR = 2.0
"""What an operation in half precision may be worse than the plain formula in that precision."""


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """|found - wanted| / |wanted|, or |found| where nothing is wanted."""
    assert found.shape == wanted.shape
    size = wanted.double().norm().item()
    return (found.double() - wanted.double()).norm().item() / (size or 1.0)


def assert_near(found: Iterable[torch.Tensor], wanted: Iterable[torch.Tensor], *, within: float = 1e-5) -> None:
    pairs = list(zip(found, wanted, strict=True))
    assert pairs
    for number, pair in enumerate(pairs):
        assert distance(*pair) <= within, number


def assert_no_worse(
    found: Iterable[torch.Tensor],
    plain: Iterable[torch.Tensor],
    exact: Iterable[torch.Tensor],
    *,
    factor: float = FACTOR,
) -> None:
    """Each of `found` is as near to `exact` as `plain`, the same formula in the same number format, give or take."""
    triples = list(zip(found, plain, exact, strict=True))
    assert triples
    for number, (ours, theirs, wanted) in enumerate(triples):
        assert ours.isfinite().all(), number
        assert distance(ours, wanted) <= factor * distance(theirs, wanted) + 1e-7, number


def normal(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random numbers, the same each time."""
    generator = torch.Generator().manual_seed(seed + 1000 * math.prod(shape))
    return (scale * torch.randn(*shape, generator=generator)).to(dtype)
