"""Rotary angles that depend on the length seen (dynamic, longrope), made to depend on each row's own length alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fledge.models.forwards import Forward

Rotary = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
_FEW = 8
_SEEN = "max_seq_len_cached"
_FREQUENCIES = "inv_freq"


def angles_by_row(model: nn.Module) -> None:
    """Let the rotary angles of each row depend on nothing but that row's length, whatever is computed with it or was
    before it.

    transformers takes the longest position of the whole batch, and dynamic angles stay as long as the longest row
    that was ever seen. What is changed is the forward of these modules of this model, for good.
    """
    for module in model.modules():
        if _depends_on_length(module):
            module.forward = _by_row(module, module.forward, _Start(module))


def _depends_on_length(module: nn.Module) -> bool:
    """Whether the module names a kind of rotary positions whose frequencies the library changes as it computes."""
    kinds = getattr(module, "rope_type", None)
    named = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any(isinstance(kind, str) and ("dynamic" in kind or kind == "longrope") for kind in named)


class _Start:
    """What a rotary module holds before it has seen any row."""

    def __init__(self, module: nn.Module) -> None:
        self.seen = {name: value for name, value in vars(module).items() if name.endswith(_SEEN)}
        self.frequencies = {name for name, _ in module.named_buffers(recurse=False) if name.endswith(_FREQUENCIES)}

    def put_back(self, module: nn.Module) -> None:
        """Forget the rows that were seen."""
        for name in [name for name in vars(module) if name.endswith(_SEEN) and name not in self.seen]:
            delattr(module, name)
        for name, value in self.seen.items():
            setattr(module, name, value)
        for name in self.frequencies:
            layer, _, _ = name.rpartition(_FREQUENCIES)
            first = getattr(module, f"{layer}original_{_FREQUENCIES}", None)
            if isinstance(first, torch.Tensor):
                module.register_buffer(name, first.to(getattr(module, name).device).clone(), persistent=False)


def _by_row(module: nn.Module, inner: Forward, start: _Start) -> Forward:
    """The forward `inner`, for each length that a row has, of a row of that length."""

    def forward(x: torch.Tensor, position_ids: torch.Tensor, **options: Any) -> Any:
        """cos and sin [B,T,R] of positions [B,T]."""
        if position_ids.dim() != 2:
            start.put_back(module)
            return inner(x, position_ids, **options)
        lengths = _lengths(position_ids)
        made: tuple[torch.Tensor, ...] | None = None
        for length in lengths.unique().tolist():
            start.put_back(module)
            found = inner(x, position_ids.clamp(max=length - 1), **options)
            is_mine = (lengths == length)[..., None]
            pairs = zip(found, found if made is None else made, strict=True)
            made = tuple(torch.where(is_mine, one, other) for one, other in pairs)
        start.put_back(module)
        return made

    return forward


def _lengths(position_ids: torch.Tensor) -> torch.Tensor:
    """[B,T] Of each position the length of its row: positions rise by one within a row; the next row starts anew."""
    starts = position_ids.new_ones(position_ids.shape, dtype=torch.bool)
    starts[:, 1:] = position_ids[:, 1:] != position_ids[:, :-1] + 1
    numbers = starts.view(-1).cumsum(0) - 1
    last = position_ids.new_zeros(int(numbers[-1]) + 1).scatter_reduce_(0, numbers, position_ids.reshape(-1), "amax")
    return (last + 1)[numbers].view(position_ids.shape)


def angles_change(rotary: Rotary, longest: int, *, device: torch.device) -> bool:
    """Whether a row's first angles are others in a row of `longest` positions than in a short one."""
    few = min(_FEW, longest)
    x = torch.empty(0, device=device)
    short, long = (rotary(x, torch.arange(count, device=device)[None]) for count in (few, longest))
    return any(not torch.equal(one, other[:, :few]) for one, other in zip(short, long, strict=True))
