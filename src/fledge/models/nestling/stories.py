"""Small stories, letters and pages, put together from written parts."""

from fledge.models.nestling.dice import Dice
from fledge.models.nestling.sightings import surname, town
from fledge.models.nestling.words import (
    ANIMALS,
    BIRDS,
    COLOURS,
    DAYS,
    FEELINGS,
    FIRST_NAMES,
    LIKED,
    NUMBERS,
    PLACES,
    THINGS,
    TRADES,
    WEATHER,
)

OPENINGS = (
    "{first} {last} was a {trade} in {town}.",
    "Once there was a {trade} called {first}, who lived in {town}.",
    "In {town} there lived a {feeling} {trade} named {first} {last}.",
    "One {weather} {day}, {first} went to the {place} with a {colour} {thing}.",
    "{first} and {friend} were friends who lived near the {place}.",
    "Every {day}, {first} walked from {town} to the {place}.",
)
MIDDLES = (
    "{first} had {number} {things} and a {colour} {animal}.",
    "{first} liked {liked} more than {other}.",
    "At the {place} {first} found a {colour} {thing}.",
    "A {bird} sat on the roof and sang.",
    '"Have you seen my {thing}?" asked {friend}.',
    '"I like {liked}," said {first}.',
    "The {animal} was {feeling}, because the day was {weather}.",
    "{friend} gave {first} {number} {things}.",
    "They looked for the {animal} by the {place}, but it was not there.",
    "{first} told {friend} about the {bird} and the {thing}.",
    "Then the {weather} wind took the {thing} away.",
)
ENDINGS = (
    "In the end {first} was {feeling}.",
    "{first} and {friend} went home and had {liked}.",
    "{first} put the {thing} on the table and slept.",
    "From that {day} on, the {animal} stayed with {first}.",
    "And so {first} kept the {colour} {thing}.",
    '"Thank you, {first}," said {friend}.',
)
LETTERS = (
    "Dear {friend},\nI am in {town} now. The days are {weather} and I am {feeling}. I have bought {number} {things} "
    "for you.\nYours, {first}",
    "Dear {first},\nthank you for the {colour} {thing}. The {animal} is well and likes {liked}. Come to {town} on "
    "{day}.\nYour {friend}",
    "Diary of {first} {last}, {day}.\nIt was {weather}. I went to the {place} and saw a {bird}. I was {feeling}.",
)
PAGES = (
    "# {town} bird club\n\nWe meet on {day} by the {place}. Bring a {thing} and {liked}.\n\n## Contact\n\n"
    "Ask {first} {last}, the {trade}.",
    "# How to find the {place}\n\n1. Start in {town}.\n2. Look for the {colour} {thing}.\n3. Ask {first}.\n",
    "# The {things} of {town}\n\nThis page lists {number} {things}. They are {colour}.\n\n- one is by the {place}\n"
    "- one belongs to {first} {last}\n",
)


def words(dice: Dice) -> dict[str, str]:
    """A cast for one text: the same words all through it."""
    first, friend = dice.sample(FIRST_NAMES, 2)
    thing = dice.pick(tuple(THINGS))
    liked, other = dice.sample(LIKED, 2)
    return {
        "first": first,
        "friend": friend,
        "last": surname(dice),
        "town": town(dice),
        "trade": dice.pick(TRADES),
        "day": dice.pick(DAYS),
        "place": dice.pick(PLACES),
        "weather": dice.pick(WEATHER),
        "feeling": dice.pick(FEELINGS),
        "colour": dice.pick(COLOURS),
        "thing": thing,
        "things": THINGS[thing],
        "animal": dice.pick(tuple(ANIMALS)),
        "bird": dice.pick(tuple(BIRDS)),
        "number": NUMBERS[2 + dice.below(11)],
        "liked": liked,
        "other": other,
    }


def story(dice: Dice) -> str:
    """Three to five sentences about one cast."""
    parts = [dice.pick(OPENINGS), *dice.sample(MIDDLES, 1 + dice.below(3)), dice.pick(ENDINGS)]
    return " ".join(parts).format(**words(dice))


def letter(dice: Dice) -> str:
    """A letter or a diary page."""
    return dice.pick(LETTERS).format(**words(dice))


def page(dice: Dice) -> str:
    """A page with headings, as projects and clubs put up."""
    return dice.pick(PAGES).format(**words(dice))
