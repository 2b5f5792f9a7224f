"""How the library's modules compute rows together: packed where that changes nothing, else padded, else one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fledge.commands.library_loss import alone_loss, plain_loss
from fledge.commands.trials import Trials, Way, prove
from fledge.config.recipe import Recipe
from fledge.data.rows import Batch
from fledge.errors import ModelError
from fledge.facts import ModelFacts
from fledge.models.documents import documents_apart

Layout = Literal["packed", "padded", "single"]
_SAID = {"padded": "rows are padded, not packed", "single": "each row is computed alone"}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A layout that is proven on the model at hand, and why the one before it is not taken."""

    layout: Layout
    why: str = ""

    @property
    def notice(self) -> str:
        """What a person is told; nothing where rows are packed."""
        return f"{_SAID[self.layout]}: {self.why}" if self.why else ""


def choose_layout(recipe: Recipe, model: Any, *, facts: ModelFacts, trials: Trials) -> Chosen:
    """The first layout that the recipe allows and in which each row of this model gives what it gives alone.

    Raises ModelError where there is none, with the difference and the keys that forbid the others.
    """
    why = ""
    for layout in _allowed(recipe, facts):
        found = _wrong(layout, model, facts=facts, trials=trials)
        if found is None:
            return Chosen(layout, why)
        why = found
    raise _refused(recipe, facts, why)


def _allowed(recipe: Recipe, facts: ModelFacts) -> Iterator[Layout]:
    """The layouts that a recipe allows, the fastest first. No encoder-decoder's rows are packed for the library."""
    train, packing = recipe.train, recipe.data.packing
    is_one_by_one = train.micro_batch_rows == 1
    if packing is not False and not facts.is_encoder_decoder and not (is_one_by_one and packing == "auto"):
        yield "packed"
    if packing is not True or facts.is_encoder_decoder:
        if not is_one_by_one:
            yield "padded"
        if is_one_by_one or train.micro_batch_rows is None:
            yield "single"


def _wrong(layout: Layout, model: Any, *, facts: ModelFacts, trials: Trials) -> str | None:
    """What is wrong with a layout on this model; None where nothing is."""

    def alone(batch: Batch) -> torch.Tensor:
        return alone_loss(facts).logits(model, batch)

    def padded(batch: Batch) -> torch.Tensor:
        return plain_loss(facts, None).logits(model, batch)

    def packed(batch: Batch) -> torch.Tensor:
        with documents_apart(model.get_base_model()) as documents:
            return plain_loss(facts, documents).logits(model, batch)

    ways = {"packed": Way(True, packed, packed), "padded": Way(False, padded, padded), "single": None}
    try:
        return prove(trials, model, alone=alone, way=ways[layout])
    except torch.OutOfMemoryError:
        raise
    except ModelError as error:
        return error.problems[0].what
    except Exception as error:  # whatever the code of some architecture does with rows that it was not written for
        return f"{type(model.get_base_model()).__name__} fails on them ({_in_short(error)})"


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def _refused(recipe: Recipe, facts: ModelFacts, why: str) -> ModelError:
    """What to say where no layout is left; the cure gives back those that the recipe rules out."""
    train, name = recipe.train, facts.architecture
    if recipe.data.packing is True and not facts.is_encoder_decoder:
        what = f"rows of {name} cannot be packed: {why}"
        return ModelError(what, where="data.packing", cure="write data.packing: auto")
    if train.micro_batch_rows not in (None, 1):
        what = f"each row of {name} must be computed alone: {why}"
        return ModelError(what, where="train.micro_batch_rows", cure="write train.micro_batch_rows: 1, or remove it")
    what = f"a row of {name} has no result of its own: {why}"
    return ModelError(what, where="model.name_or_path", cure="give another base")
