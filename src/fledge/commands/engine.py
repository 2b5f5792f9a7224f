"""The engine of a model, where every part of it can be read."""

import torch
from peft import PeftModel

from fledge.adapters.fast import as_linear
from fledge.engine.block import Keep
from fledge.engine.run import Engine
from fledge.models.body import read_body
from fledge.ops.buffers import Buffers
from fledge.ops.grain import grain_of, rounded


def build_engine(model: PeftModel, *, device: torch.device, rows: int, keep: Keep = Keep.ALL) -> Engine:
    """The engine of an adapted model, for micro-batches of at most `rows` positions. Raises NotReadable where a part of it is none that the engine knows."""
    body = read_body(model.get_base_model(), as_linear)
    return Engine(body, Buffers(device, rows=rounded(rows, grain_of(rows))), (keep,) * len(body.blocks), grain_of(rows))
