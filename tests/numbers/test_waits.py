"""A step asks nothing of its device on the way: computed where no value can be read and no copy goes unseen."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fledge.adapters.fast import as_linear
from fledge.engine.block import Keep
from fledge.engine.run import Engine
from fledge.models.body import read_body
from fledge.ops.buffers import Buffers
from fledge.training.fast_loss import as_packed
from fledge.training.loss import to_device
from tests.numbers.engine_models import VARIANTS, batch_of, model_of

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Notes every operation that goes from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {x.device for x in (*args, out) if isinstance(x, torch.Tensor)}
        if len(devices) > 1:
            self.found.append(str(func))
        return out


def moved(value: Any) -> Any:
    """What a body is made of, on the meta device."""
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(value.detach().to(META), requires_grad=value.requires_grad)
    if isinstance(value, torch.Tensor):
        return value.to(META)
    if isinstance(value, tuple):
        return tuple(moved(part) for part in value)
    if dataclasses.is_dataclass(value):
        parts = {field.name: moved(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **parts)
    return value


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradients_are_computed_without_a_value_or_a_copy(name, share, tmp_path: Path):
    model = model_of(name, tmp_path)
    body = moved(read_body(model.get_base_model(), as_linear))
    model.to(META)
    engine = Engine(body, Buffers(META), lambda *_: (Keep.ALL,) * len(body.all_blocks))
    batch = as_packed(to_device(batch_of(share=share), META))
    engine.loss(batch).backward()  # what is kept from then on is brought to the device once
    with Copies() as copies:
        engine.loss(batch).backward()
    assert copies.found == []
