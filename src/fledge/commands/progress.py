"""How a verb that prepares data tells of it."""

from collections.abc import Callable

OnPrepare = Callable[[int, int | None], None]
"""Told how many rows are prepared, and of how many where that is known."""


Say = Callable[[str], None]
"""Told a line, in words, for each part of a work that begins and takes long."""


def say_nothing(line: str) -> None:
    """Nobody is told."""


def ignore_progress(done: int, total: int | None) -> None:
    """Nobody is told."""
