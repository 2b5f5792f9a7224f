"""The rows on which a computation is proven before a training: the run's own, as long as they are, and short ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fledge.commands.alone import Logits, Trial, difference, last_difference, make_trial
from fledge.commands.choices import decided_by_width
from fledge.commands.library_loss import alone_loss
from fledge.data.rows import Row
from fledge.data.store import TokenStore
from fledge.facts import ModelFacts
from fledge.models.one_of_each import kinds_of_blocks, one_of_each, runs_with_one_of_each
from fledge.ops.wide_linear import wide_linears

SHORT = (16, 12)
"""Tokens of the short rows; an encoder-decoder's have as many in the source and half as many in the target. The last is
compared: it is padded, and has another one before it. Each more would cost a pass through the whole model."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What is computed: long rows on one block of each kind, short rows on the whole model."""

    long: Trial
    short: Trial
    kinds: tuple[int, ...]
    """For each block the number of the first one of its kind, which stands for it."""

    @property
    def is_whole(self) -> bool:
        """Whether each block is the only one of its kind."""
        return all(number == kind for number, kind in enumerate(self.kinds))


@dataclass(frozen=True, slots=True)
class Ids:
    """Token ids with which micro-batches are made."""

    pad: int
    decoder_start: int | None


def make_trials(model: Any, facts: ModelFacts, *, stores: Sequence[TokenStore], ids: Ids) -> Trials:
    """Trials on an adapted model, of rows of the run: the longest, the shortest and two between."""
    device = model.get_base_model().get_input_embeddings().weight.device
    rows = _some_of(stores)
    long, short = (
        make_trial(each, facts, pad_id=ids.pad, decoder_start_id=ids.decoder_start, device=device)
        for each in (rows, _cut(rows, is_pair=facts.is_encoder_decoder))
    )
    base, alone = model.get_base_model(), alone_loss(facts).logits
    kinds = kinds_of_blocks(base)
    one = short.batch([0], is_packed=False)
    if not runs_with_one_of_each(base, kinds, run=lambda: alone(model, one)):
        kinds = list(range(len(kinds)))
    return Trials(long, short, tuple(kinds))


@dataclass(frozen=True, slots=True)
class Way:
    """How rows are computed together."""

    is_packed: bool
    few: Logits
    """On one block of each kind; within `one_of_each` where the library's modules compute."""
    whole: Logits


def prove(trials: Trials, model: Any, *, alone: Logits, way: Way | None) -> str | None:
    """In what rows computed together differ from each alone, in words; None where they agree.

    Without a way it is only asked whether a row gives the same whatever was computed before it.
    """
    with wide_linears(model.dtype, trials.long.device.type):
        with one_of_each(model.get_base_model(), trials.kinds):
            why = _of_few(trials.long, model, alone=alone, way=way)
        if why is not None or trials.is_whole:
            return why
        if way is None:
            return difference(trials.short, model, alone=alone, together={})
        return last_difference(trials.short, model, alone=alone, together=way.whole, is_packed=way.is_packed)


def _of_few(trial: Trial, model: Any, *, alone: Logits, way: Way | None) -> str | None:
    """The same on the long rows, where the model has one block of each kind."""
    if way is None:
        return difference(trial, model, alone=alone, together={})
    why = decided_by_width(trial, alone=alone, together=way.few, is_packed=way.is_packed)
    return why or difference(trial, model, alone=alone, together={way.is_packed: way.few})


def _some_of(stores: Sequence[TokenStore]) -> list[Row]:
    """Up to four rows whose lengths lie far apart; the longest comes second, so that one is before it."""
    lengths = np.concatenate([store.lengths for store in stores])
    longest = int(lengths.max())
    wanted = (longest / 3, longest, 2 * longest / 3, 0)
    places = dict.fromkeys(int(np.abs(lengths - length).argmin()) for length in wanted)
    starts = np.cumsum([0, *(len(store) for store in stores)])
    numbers = [int(np.searchsorted(starts, place, side="right")) - 1 for place in places]
    return [stores[number].row(place - int(starts[number])) for number, place in zip(numbers, places, strict=True)]


def _cut(rows: Sequence[Row], *, is_pair: bool) -> list[Row]:
    """The rows cut short."""
    return [_beginning(row, count, is_pair=is_pair) for row, count in zip(rows, SHORT, strict=False)]


def _beginning(row: Row, count: int, *, is_pair: bool) -> Row:
    if not is_pair:
        return Row(row.input_ids[:count], row.trained[:count])
    stop = int(np.argmax(row.trained))
    keep = [*range(min(stop, count)), *range(stop, min(len(row.input_ids), stop + (count + 1) // 2))]
    return Row(row.input_ids[keep], row.trained[keep])
