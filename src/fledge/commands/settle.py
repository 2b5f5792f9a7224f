"""What `auto` means on this machine, written into the run's recipe so that a resume does the same."""

import torch

from fledge.commands.layout import Layout
from fledge.commands.ownership import with_changes
from fledge.config.recipe import Recipe
from fledge.errors import ModelError
from fledge.facts import ModelFacts
from fledge.ops.choice import runs_on
from fledge.runtime.memory import available_bytes

CPU_TOKENS, GPU_TOKENS = 2048, 16384
SAVED_VALUES_PER_BLOCK = 40
"""Activations that a block keeps for its backward pass, in multiples of tokens * hidden size (a coarse bound)."""

LOGIT_BYTES = 12
"""Of one logit: in the base's format, in float32, and its gradient."""


def settle(
    recipe: Recipe,
    facts: ModelFacts,
    *,
    attention: str,
    device: torch.device,
    fast_tokens: int | None,
    layout: Layout = "packed",
) -> Recipe:
    """The recipe with every `auto` replaced by what this machine and this model make of it.

    `fast_tokens` is a micro-batch of the fast engine, None where the library's modules compute, in `layout`.
    The fast engine leaves two as they are: its attention is its own, and what it computes again changes no bit. Fused
    kernels that failed on this model are left out by whoever computes it later.
    """
    is_fast = fast_tokens is not None
    if layout == "single":
        recipe = with_changes(recipe, {"train": {"micro_batch_rows": 1}})
    train, packing = recipe.train, recipe.data.packing
    tokens, longest = train.micro_batch_tokens, longest_row(recipe, facts)
    if tokens == "auto" and train.micro_batch_rows is None:
        tokens = max(longest, fast_tokens or _micro_batch_tokens(facts, device))
    checkpointing = train.gradient_checkpointing
    if checkpointing == "auto" and not is_fast:
        width = tokens if isinstance(tokens, int) else (train.micro_batch_rows or 1) * longest
        checkpointing = activation_bytes(facts, tokens=width) > 0.6 * available_bytes(device)
    return with_changes(
        recipe,
        {
            "model": {
                "attention": "auto" if is_fast else attention,
                "placement": "gpu" if device.type == "cuda" else "cpu",
            },
            "data": {"packing": layout == "packed" if packing == "auto" else packing},
            "train": {
                "engine": "fast" if is_fast else "plain",
                "share_prefixes": _shares(recipe, can_share=is_fast and not facts.is_encoder_decoder),
                "kernels": "torch" if is_fast and not runs_on(device) else train.kernels,
                "micro_batch_tokens": tokens,
                "gradient_checkpointing": checkpointing,
            },
        },
    )


def longest_row(recipe: Recipe, facts: ModelFacts) -> int:
    """Tokens that a row can have, an encoder-decoder's on both sides together."""
    return recipe.data.max_length + (recipe.data.max_target_length if facts.is_encoder_decoder else 0)


def _shares(recipe: Recipe, *, can_share: bool) -> bool:
    wanted = recipe.train.share_prefixes
    if wanted is True and not can_share:
        what = "an encoder reads in both directions, so rows share no beginning"
        raise ModelError(what, where="train.share_prefixes", cure="write share_prefixes: auto")
    return (can_share and recipe.lora.lora_dropout == 0) if wanted == "auto" else wanted


def _micro_batch_tokens(facts: ModelFacts, device: torch.device) -> int:
    """As many tokens as pay off on this kind of device, fewer where their logits would fill a quarter of its memory."""
    wanted = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
    room = 0.25 * available_bytes(device) / (facts.vocab_size * LOGIT_BYTES)
    return min(wanted, int(room))


def activation_bytes(facts: ModelFacts, *, tokens: int) -> int:
    """A coarse upper bound of what a backward pass over `tokens` tokens keeps, in bytes."""
    return tokens * facts.hidden_size * facts.num_layers * SAVED_VALUES_PER_BLOCK * facts.value_bytes
