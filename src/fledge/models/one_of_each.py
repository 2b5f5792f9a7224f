"""A model with one block of each kind: the others hand on what they are given, so that a check costs little."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from fledge.models.blocks import blocks, stacks
from fledge.models.forwards import Forward

_HIDDEN = ("hidden_states", "x", "hidden")
_NUMBER = re.compile(r"(idx|id|index|number)$")
"""Names under which a module keeps the number of its block."""


def kinds_of_blocks(model: PreTrainedModel) -> list[int]:
    """For each block, in the order of `blocks`, the number of the first one that is of its kind.

    Two are of one kind where they are made of the same modules of the same sizes and settings, and where every list of
    the configuration that has a value for each block says the same of both. What a block is by its place alone, the
    model's own code may know, and this does not.
    """
    found = [(side, place, block) for side, stack in enumerate(stacks(model)) for place, block in enumerate(stack)]
    first: dict[tuple[Any, ...], list[int]] = {}
    lists = _lists(model, len(found))
    for number, (side, place, block) in enumerate(found):
        kind = (side, _shape(block, place), tuple(str(values[number]) for values in lists))
        first.setdefault(kind, []).append(number)
    numbers = {number: same[0] for same in first.values() for number in same}
    return [numbers[number] for number in range(len(found))]


@contextlib.contextmanager
def one_of_each(model: PreTrainedModel, kinds: Sequence[int]) -> Iterator[None]:
    """Within it the blocks that are no first one of their kind hand on the hidden states that they are given."""
    found = blocks(model)
    outputs: dict[int, Any] = {}
    replaced = [(block, block.__dict__.get("forward")) for block in found]
    for number, (block, kind) in enumerate(zip(found, kinds, strict=True)):
        if number == kind:
            block.forward = _noting(block.forward, number, outputs) if kinds.count(kind) > 1 else block.forward
        else:
            block.forward = _handing_on(kind, outputs)
    try:
        yield
    finally:
        for block, before in replaced:
            block.__dict__.pop("forward", None)
            if before is not None:
                block.forward = before


def _noting(inner: Forward, number: int, outputs: dict[int, Any]) -> Forward:
    """The forward `inner`, which notes what it gives beside hidden states."""

    def forward(*given: Any, **named: Any) -> Any:
        out = inner(*given, **named)
        outputs[number] = out[1:] if isinstance(out, tuple) else None
        return out

    return forward


def _handing_on(kind: int, outputs: Mapping[int, Any]) -> Callable[..., Any]:
    """A forward that gives what it is given, in the shape in which the first block of its kind gives it."""

    def forward(*given: Any, **named: Any) -> Any:
        hidden = given[0] if given else next(named[name] for name in _HIDDEN if name in named)
        rest = outputs[kind]
        return hidden if rest is None else (hidden, *rest)

    return forward


def _shape(block: nn.Module, number: int) -> tuple[Any, ...]:
    """What a block is made of, its own number in its stack left aside."""
    parts = []
    for name, module in block.named_modules():
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        shapes = tuple((key, tuple(tensor.shape), tensor.requires_grad) for key, tensor in tensors)
        parts.append((name, type(module), shapes, _settings(module, number)))
    return tuple(parts)


def _settings(module: nn.Module, number: int) -> tuple[tuple[str, str], ...]:
    """The plain values that a module keeps, but for such as are its block's number; in a module's full name this is
    left out.
    """
    plain = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str)}
    own = {name for name, value in plain.items() if value == number and _NUMBER.search(name)}
    values = ((name, str(value).replace(f".{number}.", "..")) for name, value in plain.items() if name not in own)
    return tuple(sorted(values))


def _lists(model: PreTrainedModel, count: int) -> list[list[Any]]:
    """The lists of the configurations that have a value for each block."""
    configs: list[Any] = [model.config, model.config.get_text_config()]
    found = [value for config in configs for value in vars(config).values()]
    return [list(value) for value in found if isinstance(value, list | tuple) and len(value) == count]


def runs_with_one_of_each(model: PreTrainedModel, kinds: Sequence[int], *, run: Callable[[], torch.Tensor]) -> bool:
    """Whether the model computes finite numbers so: some blocks need what an earlier one of their kind gives."""
    if all(number == kind for number, kind in enumerate(kinds)):
        return True
    try:
        with one_of_each(model, kinds), torch.no_grad():
            return bool(run().isfinite().all())
    except Exception:  # whatever the code of some architecture does without its blocks
        return False
