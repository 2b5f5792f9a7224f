"""Which of the library's attention codes a recipe can ask for, and what each needs."""

import importlib.util

import torch

IMPLEMENTATIONS = {"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}
"""A recipe's name -> transformers' name."""


def named(implementation: str) -> str:
    """A recipe's name of what transformers chose; auto where recipes have none for it."""
    return next((name for name, known in IMPLEMENTATIONS.items() if known == implementation), "auto")


def flash_missing() -> str | None:
    """What flash attention lacks on this machine; None where it can run."""
    if not torch.cuda.is_available():
        return "it needs a GPU"
    if importlib.util.find_spec("flash_attn") is None:
        return "the package flash-attn is not installed"
    return None
