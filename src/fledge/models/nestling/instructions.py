"""Small tasks with their answers, told as instruction, input and response."""

from collections.abc import Callable

from fledge.models.nestling.dice import Dice
from fledge.models.nestling.sightings import asked_of_a_note, surname, town
from fledge.models.nestling.words import (
    COLOURS,
    COMMON,
    DAYS,
    FIRST_NAMES,
    KINDS,
    MONTHS,
    NUMBERS,
    OPPOSITES,
    PAST,
    SYLLABLES,
    TRADES,
)

Task = tuple[str, str, str]
"""Instruction, input (may be empty), answer."""


def any_words(dice: Dice, count: int) -> list[str]:
    """Different words of one kind, or made-up ones, so that copying has to be learnt and not the words."""
    if dice.chance(0.4):
        return [made_up(dice) for _ in range(count)]
    pools = (*KINDS.values(), COLOURS, TRADES, FIRST_NAMES, tuple(OPPOSITES), COMMON)
    return dice.sample(tuple(dice.pick(pools)), count)


def made_up(dice: Dice) -> str:
    """A word that nobody has used before: syllables, or two words cut and joined, so that rare tokens stand alone."""
    if dice.chance(0.4):
        return "".join(dice.pick(SYLLABLES) for _ in range(2 + dice.below(2)))
    one, other = dice.pick(COMMON), dice.pick(COMMON)
    return one[: 1 + dice.below(len(one))] + other[dice.below(len(other)) :]


def plural(dice: Dice) -> Task:
    """One to many, and many to one."""
    one, many = dice.pick(tuple(dice.pick(tuple(KINDS.values())).items()))
    if dice.chance(0.5):
        return f"Write the plural of {one}.", "", many
    return f"Write the singular of {many}.", "", one


def opposite(dice: Dice) -> Task:
    """A word's opposite."""
    word, other = dice.pick(tuple(OPPOSITES.items()))
    return f"What is the opposite of {word}?", "", other


def past(dice: Dice) -> Task:
    """A verb's past form."""
    now, then = dice.pick(tuple(PAST.items()))
    return f"Write the past form of {now}.", "", then


def kind(dice: Dice) -> Task:
    """Bird, animal or thing."""
    name = dice.pick(tuple(KINDS))
    return f"Is a {dice.pick(tuple(KINDS[name]))} a bird, an animal or a thing?", "", name


def neighbour(dice: Dice) -> Task:
    """The day or month before or after."""
    names = dice.pick((DAYS, MONTHS))
    at = dice.below(len(names))
    if dice.chance(0.5):
        return f"What comes after {names[at]}?", "", names[(at + 1) % len(names)]
    return f"What comes before {names[at]}?", "", names[at - 1]


def number_word(dice: Dice) -> Task:
    """A number in words or in digits."""
    number = dice.below(len(NUMBERS))
    if dice.chance(0.5):
        return f"Write {NUMBERS[number]} as a number.", "", str(number)
    return f"Write {number} in words.", "", NUMBERS[number]


def addition(dice: Dice) -> Task:
    """A sum."""
    one, other = dice.below(10), dice.below(10)
    return f"What is {one} plus {other}?", "", str(one + other)


def subtraction(dice: Dice) -> Task:
    """A difference."""
    one, other = dice.below(10), dice.below(10)
    return f"What is {one + other} minus {other}?", "", str(one)


def copy(dice: Dice) -> Task:
    """The text again, as it is."""
    words = ", ".join(any_words(dice, 2 + dice.below(4)))
    return dice.pick(("Repeat the list.", "Copy the words.", "Say it again.")), words, words


def reverse(dice: Dice) -> Task:
    """Words the other way round."""
    words = any_words(dice, 2 + dice.below(2))
    return "Write the list backwards.", ", ".join(words), ", ".join(reversed(words))


def pick_one(dice: Dice) -> Task:
    """One word of several, by its place."""
    words = any_words(dice, 3 + dice.below(2))
    which = dice.below(3)
    return (
        f"Write the {('first', 'second', 'last')[which]} word.",
        ", ".join(words),
        (words[0], words[1], words[-1])[which],
    )


def join(dice: Dice) -> Task:
    """Words put together with a sign between them."""
    words = any_words(dice, 2 + dice.below(3))
    mark, name = dice.pick(
        ((" and ", "and"), (" - ", "dashes"), ("; ", "semicolons"), (" / ", "slashes"), (" | ", "bars"))
    )
    return f"Join the words with {name}.", ", ".join(words), mark.join(words)


def first_letter(dice: Dice) -> Task:
    """The first letter of a word or a name."""
    word = dice.pick((dice.pick(FIRST_NAMES), surname(dice), town(dice), any_words(dice, 1)[0]))
    return f"What is the first letter of {word}?", "", word[0]


def rename(dice: Dice) -> Task:
    """A name written another way."""
    first, last = dice.pick(FIRST_NAMES), surname(dice)
    text, answer = dice.pick(
        (
            ("Write the last name first.", f"{last}, {first}"),
            ("Shorten the first name.", f"{first[0]}. {last}"),
            ("Put the initials in brackets.", f"({first[0]}{last[0]})"),
            ("Write the last name.", last),
            ("Write the first name.", first),
        )
    )
    return text, f"{first} {last}", answer


def spell(dice: Dice) -> Task:
    """The letters of a word, one by one."""
    word = dice.pick(any_words(dice, 1))[:6]
    return f"Spell {word}.", "", " ".join(word)


TASKS: tuple[Callable[[Dice], Task], ...] = (
    plural, opposite, past, kind, neighbour, number_word, addition, subtraction, copy, copy, reverse, pick_one, join,
    first_letter, rename, rename, spell, asked_of_a_note, asked_of_a_note,
)  # fmt: skip


def instruction(dice: Dice) -> str:
    """One task as a text with marked parts."""
    ask, given, answer = dice.pick(TASKS)(dice)
    if dice.chance(0.3):
        return f"User: {ask} {given}".rstrip() + f"\nHelper: {answer}"
    middle = f"\n\n### Input:\n{given}" if given else ""
    return f"### Instruction:\n{ask}{middle}\n\n### Response:\n{answer}"
