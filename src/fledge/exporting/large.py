"""Which models are too large to be computed as small ones are: they would fill the memory, and each pass takes long."""

FROM = 2_000_000_000
"""Weights from which on a model is large: four gigabytes in two bytes each."""


def is_large(weights: int, device: str) -> bool:
    """Whether a model of so many weights is computed in few passes there, and block by block where it is merged."""
    return weights >= FROM and device == "cpu"
