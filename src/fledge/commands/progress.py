"""How a verb that prepares data tells of it."""

from collections.abc import Callable

OnPrepare = Callable[[int, int | None], None]
"""Told how many rows are prepared, and of how many where that is known."""


def ignore_progress(done: int, total: int | None) -> None:
    """Nobody is told."""
