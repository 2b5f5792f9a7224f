"""The engine of a model, where every part of it can be read, proven on it against the library's own modules."""

import contextlib
from typing import Any

import torch

from fledge.adapters.fast import as_linear
from fledge.commands.proof import FEW, TILES, Lengths, disagreement, pair_disagreement
from fledge.config.recipe import Recipe
from fledge.data.store import TokenStore
from fledge.engine.keeping import keeps_within
from fledge.engine.run import Engine
from fledge.engine.trunk import has_trunk_on
from fledge.errors import ModelError, NotReadable
from fledge.facts import ModelFacts
from fledge.models.body import read_body
from fledge.ops.buffers import Buffers
from fledge.ops.choice import refuse, runs_on, unfused, why_not
from fledge.ops.grain import GRAIN, grain_of, rounded

_TEXT_ROWS = 256


def build_engine(
    model: Any, *, device: torch.device, rows: int, longest: int = 0, budget: float = float("inf")
) -> Engine:
    """The engine of an adapted model, with room from the start for micro-batches of `rows` positions, and for a single
    row of `longest`, which may be more.

    The saved activations of a micro-batch take at most `budget` bytes where that can be; a negative budget saves as
    little as can be. Raises NotReadable where a part of the model is none that the engine knows.
    """
    body = read_body(model.get_base_model(), as_linear)
    grain = grain_of(rows) if body.encoder is None else GRAIN  # the two sides share no sizes
    room = rounded(max(rows, longest), grain) if rows else 0
    return Engine(body, Buffers(device, rows=room), keeps_within(body, budget, is_fused=runs_on(device)), grain)


def kernels_of(recipe: Recipe) -> contextlib.AbstractContextManager[None]:
    """Within it the engine computes with the kernels that the recipe chooses."""
    return unfused() if recipe.train.kernels == "torch" else contextlib.nullcontext()


def can_be_fast(
    recipe: Recipe, model: Any, *, facts: ModelFacts, device: torch.device, rows: TokenStore | None = None
) -> str | None:
    """None where the engine computes what the library does on this model, on text of these rows; else why it is not
    used.

    Raises ModelError where the recipe asks for the engine and it cannot be used.
    """
    text = None if rows is None else text_of(rows)
    why = _reason(recipe, model, facts=facts, device=device, text=text)
    if why is not None and recipe.train.engine == "fast":
        raise ModelError(
            f"the engine cannot run this model: {why}", where="train.engine", cure="write train.engine: auto, or plain"
        )
    return why


def text_of(rows: TokenStore) -> torch.Tensor:
    """[tokens] The ids of at most 256 rows, taken evenly from all, one after the other."""
    places = sorted({number * len(rows) // _TEXT_ROWS for number in range(_TEXT_ROWS)})
    return torch.cat([torch.from_numpy(rows.row(place).input_ids.astype("int64")) for place in places])


def _reason(
    recipe: Recipe, model: Any, *, facts: ModelFacts, device: torch.device, text: torch.Tensor | None
) -> str | None:
    train = recipe.train
    if train.engine == "plain":
        return "the recipe says plain"
    if not recipe.data.packing or recipe.model.attention != "auto":
        return "the recipe chooses how the library's own modules compute"
    try:
        why = why_not(device) or _disagreement_by_kernels(model, facts=facts, device=device, text=text)
        if why is None:
            return None
        with unfused():
            otherwise = _disagreement(model, facts=facts, device=device, lengths=FEW, text=text)
        if otherwise is None and runs_on(device):  # so it was the kernels
            refuse(device, why)
        return otherwise
    except NotReadable as error:
        return str(error)


def _disagreement_by_kernels(
    model: Any, *, facts: ModelFacts, device: torch.device, text: torch.Tensor | None
) -> str | None:
    """Why the fused kernels cannot be used on this model; None where they compute what the library does."""
    has_room = facts.max_positions is None or facts.max_positions >= TILES.shared + max(TILES.own)
    try:
        return _disagreement(model, facts=facts, device=device, lengths=TILES if has_room else FEW, text=text)
    except (torch.OutOfMemoryError, NotReadable):
        raise
    except Exception as error:  # a kernel that does not fit this card, or does not compile for it
        return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def _disagreement(
    model: Any, *, facts: ModelFacts, device: torch.device, lengths: Lengths, text: torch.Tensor | None
) -> str | None:
    engine = build_engine(model, device=device, rows=0)
    if facts.is_encoder_decoder:
        return pair_disagreement(engine, model, lengths=lengths, text=text)
    takes_positions, has_trunk = facts.takes_positions, has_trunk_on(device.type)
    return disagreement(engine, model, takes_positions=takes_positions, lengths=lengths, has_trunk=has_trunk, text=text)
