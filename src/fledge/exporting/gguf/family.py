"""What a family of models is to a GGUF file: its name there, its numbers, and how its tensors are laid out.

The facts are those of llama.cpp (src/models, conversion/): what its graphs compute, and in which layout they read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import torch

Config = Any
"""A model's configuration, as transformers has it."""
_YARN = {"beta_fast": 32, "beta_slow": 1, "truncate": True, "attention_factor": None, "mscale": None}
"""What llama.cpp takes for granted of yarn; an mscale is DeepSeek's."""


def _as_it_is(name: str, tensor: torch.Tensor, config: Config) -> torch.Tensor:
    """The layout of a family whose tensors lie in the file as they do in the model."""
    return tensor


def _nothing(config: Config) -> Mapping[str, torch.Tensor]:
    """The file of a family has the tensors of the model alone."""
    return {}


def never(config: Config) -> bool:
    """No model of the family."""
    return False


def always(config: Config) -> bool:
    """Every model of the family."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How one type of model becomes a GGUF file."""

    arch: gguf.MODEL_ARCH
    describe: Callable[[gguf.GGUFWriter, Config], None]
    """Writes the numbers that llama.cpp builds its graph from."""
    refusal: Callable[[Config], str | None]
    """What this model has that the format or llama.cpp's graph has not."""
    layout: Callable[[str, torch.Tensor, Config], torch.Tensor] = _as_it_is
    """A float32 tensor, by its name in the model, as the file has it."""
    extras: Callable[[Config], Mapping[str, torch.Tensor]] = _nothing
    """Vectors in float32 that the file has beside the model's tensors, by their names there."""
    longest: Callable[[Config], int] = lambda config: int(config.max_position_embeddings)
    """Positions up to which llama.cpp computes what the model does."""
    writes_tied_head: bool = False
    """Whether the file has a head even where the model's is its embedding."""
    has_own_head: bool = True
    """Whether llama.cpp reads a head that is not the embedding."""
    is_read_by_transformers: Callable[[Config], bool] = never
    """Whether transformers' own GGUF reader gives the model back."""


def describe_decoder(writer: gguf.GGUFWriter, config: Config, *, feed_forward: int, kv_heads: int) -> None:
    """The numbers that every family has."""
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_feed_forward_length(feed_forward)


def rope_theta(config: Config) -> float:
    """The base of the rotary frequencies."""
    return float(config.rope_parameters["rope_theta"])


def head_width(config: Config) -> int:
    """Values in one head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rotary_width(config: Config) -> int:
    """How many of a head's values are rotated."""
    return int(head_width(config) * config.rope_parameters.get("partial_rotary_factor", 1.0))


def is_scaled(config: Config) -> bool:
    """Whether rotary positions are scaled, which transformers' own reader does not read."""
    return bool(config.rope_parameters.get("rope_type", "default") != "default")


def rope_refusal(config: Config, *, is_partial: bool = False, scalings: tuple[str, ...] = ()) -> str | None:
    """Rotary positions that are scaled in none of the ways of llama.cpp's graph, or heads that are rotated in part."""
    rope = config.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind not in ("default", *scalings):
        return f"rotary positions scaled by {kind}"
    own = [name for name, usual in _YARN.items() if rope.get(name) not in (None, usual)]
    if kind == "yarn" and own:
        return f"rotary positions scaled by yarn with a {own[0]} of their own"
    if kind == "yarn" and not rope["factor"]:
        return "rotary positions scaled by yarn without a factor"
    return None if is_partial or rotary_width(config) == head_width(config) else "heads that are rotated in part"


def width_refusal(config: Config) -> str | None:
    """Some of llama.cpp's graphs compute the width of a head from that of the model."""
    is_usual = head_width(config) * config.num_attention_heads == config.hidden_size
    return None if is_usual else "heads that are not as wide as the model together"


def until_window(config: Config) -> int:
    """Positions up to where a sliding window begins to matter, for graphs of llama.cpp that have none."""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return int(min(config.max_position_embeddings, window or config.max_position_embeddings))


def activation_refusal(found: str, known: tuple[str, ...]) -> str | None:
    """llama.cpp has one activation for each family."""
    return None if found in known else f"the activation {found}"


def first_refusal(*found: str | None) -> str | None:
    """The first thing that stands in the way."""
    return next((words for words in found if words), None)


def consecutive(fused: torch.Tensor, *, groups: int, width: int) -> torch.Tensor:
    """Queries, keys and values of a fused projection behind one another: all queries, then all keys, then all values.

    In the model they lie group by group: each key/value head with the query heads that read it before it, `width`
    rows to a head. [(groups*(n+2))*width, ...] -> the same shape.
    """
    by_group = fused.reshape(groups, -1, width, *fused.shape[1:])
    parts = (by_group[:, :-2], by_group[:, -2], by_group[:, -1])
    return torch.cat([part.reshape(-1, *fused.shape[1:]) for part in parts])
