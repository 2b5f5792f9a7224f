"""The engine of a model, where every part of it can be read, proven on it against the library's own modules."""

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fledge.adapters.fast import as_linear
from fledge.commands.library_loss import alone_loss
from fledge.commands.proof import FEW, TILES, Lengths, disagreement, pair_disagreement
from fledge.commands.trials import Trials, Way, prove
from fledge.config.recipe import Recipe
from fledge.data.rows import Batch
from fledge.data.store import TokenStore
from fledge.engine.keeping import keeps_within
from fledge.engine.run import Engine
from fledge.engine.trunk import has_trunk_on
from fledge.errors import ModelError, NotReadable
from fledge.facts import ModelFacts
from fledge.models.body import read_body
from fledge.models.one_of_each import one_of_each
from fledge.models.rotary import angles_change
from fledge.ops.buffers import Buffers
from fledge.ops.choice import refuse, runs_on, unfused, why_not
from fledge.ops.grain import GRAIN, grain_of, rounded
from fledge.training.fast_loss import as_packed

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


@dataclass(frozen=True, slots=True)
class Probe:
    """What the engine is tried on: an adapted model, text of the run's rows, and rows together and alone."""

    model: Any
    facts: ModelFacts
    device: torch.device
    text: torch.Tensor | None = None
    """[tokens]; drawn ids where there is none."""
    trials: Trials | None = None


def can_be_fast(recipe: Recipe, probe: Probe) -> str | None:
    """None where the engine computes what the library does on this model and these rows; else why it is not used.

    Raises ModelError where the recipe asks for the engine and it cannot be used.
    """
    why = _reason(recipe, probe)
    if why is not None and recipe.train.engine == "fast":
        raise ModelError(
            f"the engine cannot run this model: {why}", where="train.engine", cure="write train.engine: auto, or plain"
        )
    return why


def text_of(rows: TokenStore) -> torch.Tensor:
    """[tokens] The ids of at most 256 rows, taken evenly from all, one after the other."""
    places = sorted({number * len(rows) // _TEXT_ROWS for number in range(_TEXT_ROWS)})
    return torch.cat([torch.from_numpy(rows.row(place).input_ids.astype("int64")) for place in places])


def _reason(recipe: Recipe, probe: Probe) -> str | None:
    train, device = recipe.train, probe.device
    if train.engine == "plain":
        return "the recipe says plain"
    if recipe.data.packing is False or recipe.model.attention != "auto":
        return "the recipe chooses how the library's own modules compute"
    try:
        if why := _angles(recipe, probe):
            return why
        why = why_not(device) or _disagreement_by_kernels(probe)
        if why is None:
            return None
        with unfused():
            otherwise = _disagreement(probe, lengths=FEW)
        if otherwise is None and runs_on(device):  # so it was the kernels
            refuse(device, why)
        return otherwise
    except NotReadable as error:
        return str(error)


def _angles(recipe: Recipe, probe: Probe) -> str | None:
    """What is wrong with rotary angles, where they depend on more than a position: rows that share their beginning may
    be of different lengths.
    """
    rotary, longest = read_body(probe.model.get_base_model(), as_linear).rotary, recipe.data.max_length
    if rotary is None or not angles_change(rotary, longest, device=probe.device):
        return None
    return f"its rotary angles depend on the length of a row, among rows of up to {longest} tokens"


def _disagreement_by_kernels(probe: Probe) -> str | None:
    """Why the fused kernels cannot be used on this model; None where they compute what the library does."""
    limit = probe.facts.max_positions
    has_room = limit is None or limit >= TILES.shared + max(TILES.own)
    try:
        return _disagreement(probe, lengths=TILES if has_room else FEW)
    except (torch.OutOfMemoryError, NotReadable):
        raise
    except Exception as error:  # a kernel that does not fit this card, or does not compile for it
        return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def _disagreement(probe: Probe, *, lengths: Lengths) -> str | None:
    """In what the engine differs from the library: in gradients on one block of each kind, in what long rows give on
    these, and in what short rows give on the whole model.
    """
    model, facts, trials = probe.model, probe.facts, probe.trials
    engine = build_engine(model, device=probe.device, rows=0)
    kinds = tuple(range(len(engine.body.all_blocks))) if trials is None else trials.kinds
    few = with_blocks(engine, kinds)
    with one_of_each(model.get_base_model(), kinds):
        if facts.is_encoder_decoder:
            why = pair_disagreement(few, model, lengths=lengths, text=probe.text)
        else:
            takes_positions, has_trunk = facts.takes_positions, has_trunk_on(probe.device.type)
            why = disagreement(
                few, model, takes_positions=takes_positions, lengths=lengths, has_trunk=has_trunk, text=probe.text
            )
    if why is not None or trials is None:
        return why
    way = Way(True, functools.partial(engine_logits, few), functools.partial(engine_logits, engine))
    return prove(trials, model, alone=functools.partial(alone_loss(facts).logits, model), way=way)


def with_blocks(engine: Engine, kinds: Sequence[int]) -> Engine:
    """The engine with the first block of each kind alone."""
    kept = [block for number, block in enumerate(engine.body.all_blocks) if kinds[number] == number]
    encoder, below = engine.body.encoder, 0
    if encoder is not None:
        below = sum(number == kind for number, kind in enumerate(kinds[: len(encoder.blocks)]))
        encoder = replace(encoder, blocks=tuple(kept[:below]))
    body = replace(engine.body, blocks=tuple(kept[below:]), encoder=encoder)
    return Engine(body, engine.buffers, keeps_within(body, float("inf")), engine.grain)


def engine_logits(engine: Engine, batch: Batch) -> torch.Tensor:
    """[M,V] of the positions that something is predicted from."""
    return engine.body.logits(engine.states(as_packed(batch)))
