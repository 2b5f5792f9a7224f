"""The engine on the meta device, where no value can be read, with every copy between devices seen."""

import dataclasses
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fledge.adapters.fast import as_linear
from fledge.data.rows import Batch
from fledge.engine.block import Keep
from fledge.engine.run import Engine
from fledge.models.body import read_body
from fledge.ops.buffers import Buffers
from fledge.training.fast_loss import as_packed
from fledge.training.loss import to_device

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Notes every operation whose tensors lie on more than one device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device for tensor in tensors}) > 1:
            self.found.append(str(func))
        return out


def assert_asks_nothing(model: Any, batch: Batch, *, keep: Keep) -> None:
    """Loss and gradients are computed without a value that is read and without a copy. The model lies on the meta
    device afterwards.
    """
    body = _moved(read_body(model.get_base_model(), as_linear))
    model.to(META)
    engine = Engine(body, Buffers(META), lambda *_: (keep,) * len(body.all_blocks))
    packed = as_packed(to_device(batch, META))
    engine.loss(packed).backward()  # what is kept from then on is brought to the device once
    with Copies() as copies:
        engine.loss(packed).backward()
    assert copies.found == []


def _moved(value: Any) -> Any:
    """What a body is made of, on the meta device; its functions are the model's, which moves by itself."""
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(value.detach().to(META), requires_grad=value.requires_grad)
    if isinstance(value, torch.Tensor):
        return value.to(META)
    if isinstance(value, tuple):
        return tuple(_moved(part) for part in value)
    if dataclasses.is_dataclass(value):
        parts = {field.name: _moved(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **parts)
    return value
