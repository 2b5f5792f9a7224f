"""The texts that nestling is trained on: an endless mixture, a pure function of the seed."""

from collections.abc import Callable, Iterator

from fledge.models.nestling.dice import Dice
from fledge.models.nestling.drills import counting, echo, lookup, sums, symbols
from fledge.models.nestling.instructions import instruction
from fledge.models.nestling.sightings import card, questions
from fledge.models.nestling.stories import letter, page, story

MIXTURE: tuple[tuple[Callable[[Dice], str], int], ...] = (
    (card, 6),
    (questions, 5),
    (instruction, 6),
    (story, 3),
    (letter, 1),
    (page, 1),
    (echo, 3),
    (lookup, 2),
    (sums, 1),
    (counting, 1),
    (symbols, 2),
)


def texts(seed: int) -> Iterator[str]:
    """Texts without end; kinds come by their weights."""
    dice = Dice(seed)
    kinds = [kind for kind, weight in MIXTURE for _ in range(weight)]
    while True:
        yield dice.pick(kinds)(dice)
