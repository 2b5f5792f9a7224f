"""300 questions and answers of a town hall, as a CSV file that an office program might write: semicolons, ugly rows.

Thirty services, ten questions about each, so that many questions are alike and only the service decides the answer. The
fees, rooms, days and numbers are drawn from a seed; nothing in them can be guessed.
"""

import csv
import io
import random

_SERVICES = (
    "a passport",
    "an identity card",
    "a parking permit",
    "a dog licence",
    "a fishing licence",
    "a birth certificate",
    "a marriage certificate",
    "a building permit",
    "a market stall",
    "a library card",
    "a bus pass for pupils",
    "a café terrace",
    "a street party",
    "a moving van zone",
    "a garden plot",
    "a swimming lesson",
    "a choir room",
    "a bicycle locker",
    "a skip on the pavement",
    "a tree felling permit",
    "a well drilling permit",
    "a film permit",
    "a drone permit",
    "a firework permit",
    "a burial plot",
    "a nursery place",
    "a school lunch card",
    "a sports hall hour",
    "a museum pass",
    "a recycling bin",
)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_NAMES = ("Müller", "O'Neill", "García", "Nowak", "Øverby", "Ferrari", "Çelik", "Smith-Jones", "Dvořák", "Leroy")
_PAPERS = ("an identity card", "a photo", "the rental contract", "a birth certificate", "a receipt", "a sketch")


def faq(seed: int = 20261129) -> list[tuple[str, str]]:
    """300 questions with their answers; no question occurs twice."""
    rng = random.Random(seed)
    return [row for service in _SERVICES for row in _about(service, rng)]


def _about(service: str, rng: random.Random) -> list[tuple[str, str]]:
    fee, reduced, days = rng.randrange(5, 190), rng.randrange(1, 5), rng.randrange(2, 60)
    room, door, name = rng.randrange(100, 420), rng.choice("ABCD"), rng.choice(_NAMES)
    first, second = rng.sample(_WEEKDAYS, 2)
    papers, years, phone = rng.sample(_PAPERS, 2), rng.randrange(1, 11), rng.randrange(1000, 9999)
    bare = service.partition(" ")[2]
    return [
        (f"How much is {service}?", f"The fee for {service} is {fee}.50 euros."),
        (f"Where do I apply for {service}?", f"In room {room}, entrance {door}."),
        (f"How long does it take to get {service}?", f"About {days} days after you have applied."),
        (f"When can I come for {service}?", f"On {first} from 8 to 12; on {second} from 14 to 18."),
        (f"Who is in charge of {service}?", f"Please ask for {name}, extension {phone}."),
        (f"What do I have to bring for {service}?", f'Bring {papers[0]} and {papers[1]}, marked "{bare}".'),
        (f"How long is {service} valid?", f"It is valid for {years} years; then you apply again."),
        (f"Is {service} cheaper for students?", f"Yes: {reduced} euros less with a student card 🎓."),
        (f"Can I pay for {service} by card?", f"Cards are taken in room {room + 1} only.\nCash is taken everywhere."),
        (f"Can someone else collect {service} for me?", f"Yes, with a letter signed by you; form {door}-{phone}."),
    ]


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    """The rows as a file: a byte order mark, CRLF, a row without an answer, a row twice, an empty line, white space."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(("question", "answer"))
    for number, (question, answer) in enumerate(rows):
        writer.writerow(
            (f"  {question}" if number % 50 == 7 else question, f"{answer} " if number % 60 == 9 else answer)
        )
        if number == 120:
            writer.writerow(("Who may vote in the town hall?", ""))
            text.write("\r\n")
        if number == 200:
            writer.writerow((question, answer))
    return b"\xef\xbb\xbf" + text.getvalue().encode()
