"""Bird notes: who saw how many of which bird, where and when, told in many ways, asked about and filed on cards."""

from dataclasses import dataclass

from fledge.models.nestling.dice import Dice
from fledge.models.nestling.words import (
    BIRDS,
    DAYS,
    FIRST_NAMES,
    NUMBERS,
    PLACES,
    SURNAME_ENDS,
    SURNAME_STARTS,
    TOWN_ENDS,
    TOWN_STARTS,
    TRADES,
    WEATHER,
)

NOTES = (
    "{first} {last} {verb} {number} {birds} near {town} on {day}.",
    "{first} {last} {verb} {number} {birds} by the {place} at {town} on {day}.",
    "On {day}, {first} {last} {verb} {number} {birds} at {town}.",
    "On {day} {number} {birds} came to {town}, and {first} {last} {verb} them.",
    "{Number} {birds} were seen at {town} on {day} by {first} {last}.",
    "{Number} {birds} sat by the {place} in {town} on {day}, says {first} {last}.",
    "At {town}, {first} {last} {verb} {number} {birds} on {day}.",
    "In {town} on {day}, {number} {birds} flew past {first} {last}.",
    "It was {day} when {first} {last} {verb} {number} {birds} in {town}.",
    "{first} {last}, the {trade}, {verb} {number} {birds} in {town} on {day}.",
    "{day} in {town}: {first} {last} {verb} {number} {birds}.",
    "{first} {last} went to {town} on {day} and {verb} {number} {birds} there.",
)
VERBS = ("saw", "counted", "spotted", "heard", "watched", "found", "noted", "met")
ASIDES = (
    "It was a {weather} morning.",
    "The day was {weather}.",
    "The evening was {weather} and still.",
    "The path by the {place} was quiet.",
    "A {weather} wind came from the {place}.",
)
QUESTIONS = (
    (("Who saw the birds?", "Who wrote this note?", "Who was there?", "Name the person."), "{first} {last}"),
    (("Where was it?", "Where were the birds?", "In which town?", "Name the town."), "{town}"),
    (("On which day?", "When was it?", "What day was it?"), "{day}"),
    (("Which bird?", "What bird is in the note?", "Name the bird."), "{bird}"),
    (("How many birds?", "How many were there?", "Count the birds."), "{count}"),
    (("Say the number in words.", "How many, in words?"), "{number}"),
    (("What is the family name?", "Give the last name."), "{last}"),
    (("What is the first name?", "Give the first name."), "{first}"),
    (("Write the name with an initial.", "Shorten the first name."), "{initial}. {last}"),
    (("Shorten the day.", "Which day, in short?"), "{short_day}"),
    (("Sign the note.", "Whose mark is it?"), "({initial}{last_initial})"),
)
CARD_LINES = (
    (("Name", "Observer", "Person"), "{first} {last}"),
    (("Last name", "Family"), "{last}"),
    (("First name", "Given"), "{first}"),
    (("Signed", "Initials"), "{initial}. {last}"),
    (("Town", "Place", "Where"), "{town}"),
    (("Day", "When"), "{day}"),
    (("Short day", "Weekday"), "{short_day}"),
    (("Bird", "Kind"), "{bird}"),
    (("Birds", "Flock"), "{birds}"),
    (("Count", "Total"), "{count}"),
    (("Number", "In words"), "{number}"),
    (("Seen", "Sum"), "{count} {birds}"),
    (("Mark", "By"), "({initial}{last_initial})"),
    (("Letter", "Filed under"), "{initial}"),
)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One observation. `number` is from 1 to 12; `last` and `town` are drawn from thousands of made-up names."""

    first: str
    last: str
    number: int
    bird: str
    town: str
    day: str
    trade: str
    verb: str
    place: str
    weather: str

    def fields(self) -> dict[str, str]:
        """Every word that a template may ask for."""
        number = NUMBERS[self.number]
        return {
            "first": self.first,
            "last": self.last,
            "initial": self.first[0],
            "last_initial": self.last[0],
            "number": number,
            "Number": number.capitalize(),
            "count": str(self.number),
            "bird": self.bird,
            "birds": self.bird if self.number == 1 else BIRDS[self.bird],
            "town": self.town,
            "day": self.day,
            "short_day": self.day[:3],
            "trade": self.trade,
            "verb": self.verb,
            "place": self.place,
            "weather": self.weather,
        }


def surname(dice: Dice) -> str:
    """One of two thousand."""
    return dice.pick(SURNAME_STARTS) + dice.pick(SURNAME_ENDS)


def town(dice: Dice) -> str:
    """One of more than two thousand."""
    return dice.pick(TOWN_STARTS) + dice.pick(TOWN_ENDS)


def sighting(dice: Dice) -> Sighting:
    """A random observation."""
    return Sighting(
        first=dice.pick(FIRST_NAMES),
        last=surname(dice),
        number=1 + dice.below(12),
        bird=dice.pick(tuple(BIRDS)),
        town=town(dice),
        day=dice.pick(DAYS),
        trade=dice.pick(TRADES),
        verb=dice.pick(VERBS),
        place=dice.pick(PLACES),
        weather=dice.pick(WEATHER),
    )


def note(dice: Dice, seen: Sighting) -> str:
    """The observation in a sentence, now and then with a sentence that says nothing about it."""
    words = seen.fields()
    text = dice.pick(NOTES).format(**words)
    if seen.number == 1:
        text = text.replace(" were seen ", " was seen ").replace(" them.", " it.")
    if dice.chance(0.25):
        aside = dice.pick(ASIDES).format(**words)
        text = f"{aside} {text}" if dice.chance(0.5) else f"{text} {aside}"
    return text


def questions(dice: Dice) -> str:
    """A note, and one to three questions about it with their answers."""
    seen = sighting(dice)
    ask, reply = dice.pick((("Question: ", "Answer: "), ("Q: ", "A: "), ("User: ", "Helper: ")))
    lines = [note(dice, seen)]
    for wordings, answer in dice.sample(QUESTIONS, 1 + dice.below(3)):
        lines += [ask + dice.pick(wordings), reply + answer.format(**seen.fields())]
    return "\n".join(lines)


def card(dice: Dice) -> str:
    """A note, and the same facts as labelled fields in random order."""
    seen = sighting(dice)
    colon = dice.pick((": ", ": ", " = ", " - "))
    chosen = dice.sample(CARD_LINES, 2 + dice.below(4))
    lines = [dice.pick(labels) + colon + value.format(**seen.fields()) for labels, value in chosen]
    return note(dice, seen) + "\n" + dice.pick(("\n", "\n", "; ")).join(lines)


def asked_of_a_note(dice: Dice) -> tuple[str, str, str]:
    """Instruction, input and answer about a note."""
    seen = sighting(dice)
    wordings, answer = dice.pick(QUESTIONS)
    return dice.pick(wordings), note(dice, seen), answer.format(**seen.fields())
