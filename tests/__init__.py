"""The tests: tiny models and fixtures are importable as `tests.*`."""
