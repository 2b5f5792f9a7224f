"""The task with a checkable format: a sentence about a payment becomes one line of JSON. Rows are made from a seed.

An answer has the keys person, place, date, amount, currency. `person` is given name and surname, without title and in
this order; `place` is the city as it is written; `date` is YYYY-MM-DD; `amount` is a number with two decimals;
`currency` is three capitals. Half of the sentences have something beside the payment that is to be left out: a number,
a date on which it was due, or a second person.

Held-out rows use surnames and cities that no training row has, and no sentence occurs twice.
"""

import datetime as dt
import json
import random
import zlib
from decimal import Decimal

KEYS = ("person", "place", "date", "amount", "currency")
SYSTEM = (
    "Reply with one line of JSON: person, place, date (YYYY-MM-DD), amount (two decimals), currency (three letters)."
)
_GIVEN = (
    "Ana Amir Beatriz Chen Clara Daniel Deepa Elif Emeka Farid Freya Georg Hana Hugo Ines Ivan Jonas José Julia Kemal "
    "Kofi Leila Lena Lukas Malik Marta Mei Nadia Nils Noor Oscar Paula Pedro Priya Rosa Ruth Sami Sofia Tomás Wanda "
    "Yusuf Zoë"
).split()
_STARTS = (
    "Al Bar Bel Cor Dan Dor Fal Gar Hol Jan Kal Kor Lam Lin Mar Mor Nav Ol Per Ras Sal Ser Tal Tor Val Ver".split()
)
_MIDDLES = ("", "a", "e", "i", "o", "an", "en", "in", "ov", "ust", "wen", "dri")
_ENDS = (
    "berg ck dez ford gan ger ić kin ko lin man mann nen ova quist rez ro sen ski son ström ta tti vale wood".split()
)
_CITIES = (
    "Accra Ankara Athens Austin Bergen Bern Bogotá Boston Brno Bruges Cairo Cardiff Chicago Cork Cusco Dakar Delhi "
    "Denver Dublin Durban Galway Geneva Genoa Ghent Hanoi Helsinki Izmir Kobe Kraków Lagos Lima Lisbon Lyon Madrid "
    "Malmö Manila Milan Mumbai Nairobi Naples Osaka Oslo Ottawa Perth Porto Prague Quito Riga Rome Rouen Seattle Seoul "
    "Seville Sofia Split Tallinn Toronto Turin Utrecht Vienna Vilnius Warsaw Zagreb Zürich"
).split()
_CURRENCIES = {
    "EUR": ("€{}", "{} euros", "EUR {}"),
    "USD": ("${}", "{} dollars", "{} USD"),
    "GBP": ("£{}", "{} pounds", "GBP {}"),
    "JPY": ("¥{}", "{} yen"),
    "CHF": ("{} Swiss francs", "CHF {}"),
    "PLN": ("{} zloty", "{} PLN"),
}
_MONTHS = (
    "January February March April May June July August September October November December".split()
)  # not by strftime, whose names depend on the machine
_SENTENCES = (
    "{person} paid {amount} in {place} on {date}{extra}.",
    "On {date}, {amount} was received from {person} in {place}{extra}.",
    "In {place} {person} handed over {amount}{extra}; the receipt is dated {date}.",
    "{date}: transfer of {amount} by {person}, {place} branch{extra}.",
    "Please note that {person} ({place}) sent us {amount} on {date}{extra}.",
    "The sum of {amount} came from {person}, who lives in {place}, on {date}{extra}.",
)
_TITLES = ("Mr", "Ms", "Dr", "Prof.")
_EXTRAS = (", invoice {number}", ", due {day}", ", on behalf of {other}", ", room {number}", ", instead of {day}")


def records(count: int, seed: int, *, is_held_out: bool) -> list[dict]:
    """`count` different rows: {"messages": [system, user, assistant]}."""
    dice = random.Random(f"records {seed} {is_held_out}")
    rows: dict[str, dict] = {}
    while len(rows) < count:
        sentence, answer = _record(dice, is_held_out=is_held_out)
        turns = (("system", SYSTEM), ("user", sentence), ("assistant", answer))
        rows.setdefault(sentence, {"messages": [{"role": role, "content": text} for role, text in turns]})
    return list(rows.values())


def is_of_held_out(name: str) -> bool:
    """Whether a surname or a city is kept for held-out rows: a fifth of them are."""
    return zlib.crc32(name.encode()) % 5 == 0


def line(person: str, place: str, date: dt.date, *, cents: int, currency: str) -> str:
    """The reference answer, letter for letter."""
    head = json.dumps({"person": person, "place": place, "date": date.isoformat()}, ensure_ascii=False)
    return f'{head[:-1]}, "amount": {Decimal(cents) / 100:.2f}, "currency": "{currency}"}}'


def _record(dice: random.Random, *, is_held_out: bool) -> tuple[str, str]:
    given, surname = dice.choice(_GIVEN), _surname(dice, is_held_out=is_held_out)
    place = dice.choice([city for city in _CITIES if is_of_held_out(city) == is_held_out])
    date, currency = _date(dice), dice.choice(list(_CURRENCIES))
    cents, written = _amount(dice)
    sentence = dice.choice(_SENTENCES).format(
        person=_person(dice, given, surname=surname),
        place=place,
        date=_written_date(dice, date),
        amount=dice.choice(_CURRENCIES[currency]).format(written),
        extra=_extra(dice, is_held_out=is_held_out) if dice.random() < 0.5 else "",
    )
    return sentence, line(f"{given} {surname}", place, date, cents=cents, currency=currency)


def _surname(dice: random.Random, *, is_held_out: bool) -> str:
    while True:
        name = dice.choice(_STARTS) + dice.choice(_MIDDLES) + dice.choice(_ENDS)
        if is_of_held_out(name) == is_held_out:
            return name


def _person(dice: random.Random, given: str, *, surname: str) -> str:
    form = dice.randrange(4)
    if form == 0:
        return f"{dice.choice(_TITLES)} {given} {surname}"
    return f"{surname}, {given}" if form == 1 else f"{given} {surname}"


def _date(dice: random.Random) -> dt.date:
    return dt.date(2015, 1, 1) + dt.timedelta(days=dice.randrange(4018))  # to the end of 2025


def _written_date(dice: random.Random, date: dt.date) -> str:
    month = _MONTHS[date.month - 1]
    teen = 10 <= date.day <= 20
    suffix = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
    return dice.choice(
        (
            f"{date.day} {month} {date.year}",
            f"{month} {date.day}, {date.year}",
            f"{month[:3]} {date.day}, {date.year}",
            f"the {date.day}{suffix} of {month} {date.year}",
            f"{date.day}.{date.month}.{date.year}",
            f"{date.year}/{date.month:02d}/{date.day:02d}",
        )
    )


def _amount(dice: random.Random) -> tuple[int, str]:
    """Cents, and how they are written: with or without comma or cents, or as so many thousand."""
    form = dice.randrange(4)
    if form == 0:
        tenths = dice.randrange(11, 500)
        return tenths * 100 * 100, f"{tenths / 10:g} thousand"
    units = dice.choice((dice.randrange(5, 1000), dice.randrange(1000, 90000)))
    if form == 1:
        return units * 100, f"{units:,}"
    if form == 2:
        return units * 100, str(units)
    cents = dice.randrange(1, 100)
    return units * 100 + cents, f"{units:,}.{cents:02d}"


def _extra(dice: random.Random, *, is_held_out: bool) -> str:
    other = f"{dice.choice(_GIVEN)} {_surname(dice, is_held_out=is_held_out)}"
    day = _written_date(dice, _date(dice))
    return dice.choice(_EXTRAS).format(number=dice.randrange(10, 9999), day=day, other=other)
