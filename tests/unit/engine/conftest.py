"""Every test of the engine's passes runs both ways."""

from tests.ways import each_way

__all__ = ["each_way"]
