"""Proves before a training that rows which are computed together give what each gives alone."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fledge.commands.rounding import off_by_rounding
from fledge.data.collate import collate
from fledge.data.collate_pairs import collate_pairs
from fledge.data.rows import Batch, Row
from fledge.facts import ModelFacts
from fledge.training.loss import to_device

MOST_LOGITS = 1 << 25
"""Logits of all rows together that are held at once: as many positions are compared as that allows, and"""
PER_BAND = 4
"""of each band at least so many."""
NARROW, WIDE = 4, 2
"""The first band is so long; each further one goes on to twice the place, or to the next number of the config."""
FLOORS = {torch.float32: 5e-5, torch.bfloat16: 0.016, torch.float16: 0.002}
"""Logits may differ by this share of their size anyhow: kernels for other shapes add up in another order."""
TIMES_ROUNDING = {torch.float32: 8.0, torch.bfloat16: 3.0, torch.float16: 3.0}
"""And by so many times what they differ when each layer's result is off by its format's precision. Sums are taken in
float32, so in formats with fewer digits each is rounded once: right rows of 32 kinds differed by 0.54 of it at most."""
COLUMNS = 4096
"""Of each position's logits at most so many are compared."""

Logits = Callable[[Batch], torch.Tensor]
"""A micro-batch -> [M,V] of the positions that something is predicted from."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows to be computed alone and together; of each, some positions predict."""

    rows: tuple[Row, ...]
    bands: tuple[tuple[int, ...], ...]
    """For each compared position of each row, row by row, the number of the band it lies in."""
    pad_id: int
    decoder_start_id: int | None
    device: torch.device

    def batch(self, numbers: Sequence[int], *, is_packed: bool) -> Batch:
        """A micro-batch of some of the rows."""
        rows = [self.rows[number] for number in numbers]
        if self.decoder_start_id is None:
            made = collate(rows, numbers, is_packed=is_packed, pad_id=self.pad_id)
        else:
            start = self.decoder_start_id
            made = collate_pairs(rows, numbers, is_packed=is_packed, pad_id=self.pad_id, start_id=start)
        return to_device(made, self.device)

    def one_by_one(self) -> list[Batch]:
        """Each row as a micro-batch of its own."""
        return [self.batch([number], is_packed=False) for number in range(len(self.rows))]

    def whole(self, *, is_packed: bool) -> Batch:
        """A micro-batch of all rows."""
        return self.batch(range(len(self.rows)), is_packed=is_packed)


def make_trial(
    rows: Sequence[Row], facts: ModelFacts, *, pad_id: int, decoder_start_id: int | None, device: torch.device
) -> Trial:
    """A trial of `rows`. A window, a chunk or a limit may be among the numbers that the model's configuration names, so
    what lies before and behind each of them is compared apart.
    """
    numbers, most = facts.numbers, MOST_LOGITS // facts.vocab_size
    found = [_chosen(row, numbers, most=most // len(rows), is_pair=decoder_start_id is not None) for row in rows]
    return Trial(tuple(row for row, _ in found), tuple(bands for _, bands in found), pad_id, decoder_start_id, device)


def _chosen(row: Row, numbers: Sequence[int], *, most: int, is_pair: bool) -> tuple[Row, tuple[int, ...]]:
    """The row with only the compared positions predicting, and the bands of these."""
    if is_pair:
        count = int(row.trained.sum())
        edges = _edges(count, numbers)
        return row, tuple(_band_of(place, edges) for place in range(count))
    edges = _edges(len(row.input_ids) - 1, numbers)
    trained: NDArray[np.bool_] = np.zeros(len(row.input_ids), dtype=np.bool_)
    per_band = max(PER_BAND, most // len(edges))
    for start, stop in itertools.pairwise(edges):
        places = np.unique(np.linspace(start, stop - 1, num=min(per_band, stop - start)).round().astype(int))
        trained[places + 1] = True
    compared = np.flatnonzero(trained[1:])
    return Row(row.input_ids, trained), tuple(_band_of(int(place), edges) for place in compared)


def _edges(length: int, numbers: Sequence[int]) -> list[int]:
    """Where bands of the positions 0 to `length` begin and end: short at first, for what a convolution sees of the row
    before ends soon, then longer and longer, and apart at each of `numbers`.
    """
    doubling = itertools.takewhile(lambda edge: edge < length, (NARROW * WIDE**power for power in itertools.count()))
    return sorted({0, *doubling, *(number for number in numbers if 0 < number < length), length})


def _band_of(place: int, edges: Sequence[int]) -> int:
    return next(number for number, edge in enumerate(edges[1:]) if place < edge)


def difference(trial: Trial, model: Any, *, alone: Logits, together: Mapping[bool, Logits]) -> str | None:
    """In what rows computed together differ from each alone, in words; None where they agree as far as rounding goes.

    `together` has a function for packed (True) or padded (False) micro-batches, or none: then it is only asked whether
    a row gives the same again when others were computed before it. The yardstick is measured where it is needed.
    """
    with torch.no_grad():
        trial, wanted = _of_numbers(trial, alone)
        if not wanted:
            return None
        single = trial.one_by_one()
        scale = _Scale(trial, model, wanted, lambda: [_seen(alone(batch)) for batch in single])
        if why := _carried(single, wanted, alone=alone):
            return why
        for is_packed, logits in together.items():
            found = _of_each(_seen(logits(trial.whole(is_packed=is_packed))), trial)
            if why := scale.beyond(found):
                return _apart_in_words(why, is_packed=is_packed)
    return None


def last_difference(trial: Trial, model: Any, *, alone: Logits, together: Logits, is_packed: bool) -> str | None:
    """The same of the trial's last row, in three passes: twice together with the others, so that what a micro-batch
    leaves behind for the next shows in the second, then alone.
    """
    with torch.no_grad():
        together(trial.whole(is_packed=is_packed))
        found = _of_each(_seen(together(trial.whole(is_packed=is_packed))), trial)[-1]
        batch = trial.batch([len(trial.rows) - 1], is_packed=False)
        wanted = _seen(alone(batch))
        if not bool(wanted.isfinite().all()):  # the first step of a training names the row
            return None
        last = replace(trial, rows=trial.rows[-1:], bands=trial.bands[-1:])
        why = _Scale(last, model, [wanted], lambda: [_seen(alone(batch))]).beyond([found])
    return _apart_in_words(why, is_packed=is_packed) if why else None


def _of_each(seen: torch.Tensor, trial: Trial) -> list[torch.Tensor]:
    """What was computed of all rows together, row by row."""
    return list(seen.split([len(bands) for bands in trial.bands]))


def _apart_in_words(why: str, *, is_packed: bool) -> str:
    return f"rows {'packed' if is_packed else 'padded'} into one micro-batch differ from each alone: {why}"


def _carried(single: Sequence[Batch], wanted: Sequence[torch.Tensor], *, alone: Logits) -> str | None:
    """Whether rows give something else after others; in reverse, so that others come before each."""
    again = [_seen(alone(batch)) for batch in reversed(single)][::-1]
    for one, other in zip(again, wanted, strict=True):
        if not torch.equal(one, other):  # the same numbers in the same shapes: there is no rounding to explain it
            far = float(_apart(one, other).max())
            return f"what is computed of a row depends on the rows before it: logits differ by {far:.1e} of their size"
    return None


def _of_numbers(trial: Trial, alone: Logits) -> tuple[Trial, list[torch.Tensor]]:
    """The trial of those rows that give numbers alone, and these. The first step of a training names the others."""
    found = [_seen(alone(batch)) for batch in trial.one_by_one()]
    kept = [number for number, values in enumerate(found) if bool(values.isfinite().all())]
    rows, bands = tuple(trial.rows[number] for number in kept), tuple(trial.bands[number] for number in kept)
    return replace(trial, rows=rows, bands=bands), [found[number] for number in kept]


class _Scale:
    """What rows give alone, and how far rounding moves it."""

    def __init__(
        self, trial: Trial, model: Any, wanted: Sequence[torch.Tensor], anew: Callable[[], list[torch.Tensor]]
    ) -> None:
        self.trial, self.model, self.wanted, self.anew = trial, model, wanted, anew
        self.moved: list[torch.Tensor] | None = None

    def beyond(self, found: Sequence[torch.Tensor]) -> str | None:
        """Where `found` lies farther from what was wanted than rounding explains; None where it nowhere does."""
        floor = FLOORS[self.model.dtype]
        distances = [_apart(one, other) for one, other in zip(found, self.wanted, strict=True)]
        for number, (row, bands) in enumerate(zip(distances, self.trial.bands, strict=True)):
            for band in dict.fromkeys(bands):
                mine = [place for place, other in enumerate(bands) if other == band]
                distance = self._typical(row, mine)
                if distance <= floor:
                    continue
                limit = TIMES_ROUNDING[self.model.dtype] * self._typical(self._moved()[number], mine)
                if not distance <= limit:  # which is never true of what is no number
                    return f"logits by {distance:.1e} of their size, where rounding explains {max(limit, floor):.0e}"
        return None

    def _moved(self) -> list[torch.Tensor]:
        """How far rounding moves each position of each row."""
        if self.moved is None:
            with off_by_rounding(self.model, seed=0):
                self.moved = [_apart(one, other) for one, other in zip(self.anew(), self.wanted, strict=True)]
        return self.moved

    def _typical(self, values: torch.Tensor, places: Sequence[int]) -> float:
        """What is held against the limit of some of the values: the largest in float32. In formats with few digits the
        median, for a router's near tie sends single tokens elsewhere.
        """
        some = values[list(places)]
        if bool(some.isnan().any()):
            return math.nan
        return float(some.max() if self.model.dtype == torch.float32 else some.median())


def _seen(logits: torch.Tensor) -> torch.Tensor:
    """[M,C] float32 of the logits [M,V]: some columns, without what all of them have in common."""
    few = logits[:, :: max(1, math.ceil(logits.shape[1] / COLUMNS))].float()
    return few - few.mean(dim=1, keepdim=True)


def _apart(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """[M] How far each position's logits are apart, as a share of their size."""
    distance: torch.Tensor = (found - wanted).norm(dim=1) / wanted.norm(dim=1).clamp(min=1e-30)
    return distance.cpu()
