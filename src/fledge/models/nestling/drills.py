"""Plain repetition: lists said twice, pairs asked for again, sums, counts; what teaches a small model to copy."""

from fledge.models.nestling.dice import Dice
from fledge.models.nestling.instructions import any_words, made_up
from fledge.models.nestling.sightings import surname, town
from fledge.models.nestling.words import FIRST_NAMES, KINDS, NUMBERS

ALPHABETS = (
    *[(0x21, 0x7E)] * 4,
    *[(0x21, 0x40)] * 2,
    (0xA1, 0x17F),
    (0xA1, 0x7FF),
    (0x391, 0x44F),
    (0x800, 0x2FFF),
    (0x2010, 0x27BF),
    (0x3041, 0xD7A3),
    (0xE000, 0xFFFD),
    (0x1F300, 0x1F64F),
    (0x10000, 0x10FFFF),
)
"""First and last code point: ASCII most often, then letters and signs of other scripts."""


def rare_name(dice: Dice) -> str:
    """A name that is put together from syllables, with a capital."""
    return made_up(dice).capitalize()


def echo(dice: Dice) -> str:
    """A list, and the same list again."""
    if dice.chance(0.5):
        items = [dice.pick((surname, town, rare_name))(dice) for _ in range(3 + dice.below(3))]
    else:
        items = any_words(dice, 3 + dice.below(4))
    line = dice.pick((", ", " ", " / ")).join(items)
    return f"{line}\n{line}"


def symbols(dice: Dice) -> str:
    """Random characters said twice, so that every byte's token has been seen and none is left like all the others."""
    first, last = dice.pick(ALPHABETS)
    signs = [chr(first + dice.below(last - first + 1)) for _ in range(4 + dice.below(7))]
    line = dice.pick(("", "", " ", "\t")).join(signs)
    return f"{line}\n{line}"


def lookup(dice: Dice) -> str:
    """Pairs, and then some of them asked for again."""
    people = dice.sample(FIRST_NAMES, 3 + dice.below(3))
    owned = {person: dice.pick((town, surname, rare_name))(dice) for person in people}
    arrow = dice.pick((": ", " -> ", " = "))
    asked = dice.sample(people, 2)
    return "\n".join(f"{person}{arrow}{owned[person]}" for person in [*people, *asked])


def sums(dice: Dice) -> str:
    """Three lines of arithmetic."""
    lines = []
    for _ in range(3):
        one, other = dice.below(13), dice.below(13)
        lines.append(f"{one} + {other} = {one + other}" if dice.chance(0.6) else f"{one + other} - {other} = {one}")
    return "\n".join(lines)


def counting(dice: Dice) -> str:
    """Numbers as words and digits with one and many of a thing."""
    lines = []
    for _ in range(3):
        one, many = dice.pick(tuple(dice.pick(tuple(KINDS.values())).items()))
        number = 1 + dice.below(12)
        lines.append(f"{NUMBERS[number]} {one if number == 1 else many} = {number} {one}")
    return "\n".join(lines)
