"""Nestling, the base that comes with Fledge: a BLOOM of a few million parameters, made by the scripts beside this."""

from pathlib import Path

FOLDER: Path = Path(__file__).resolve().parent / "weights"
"""A Hugging Face model folder."""
