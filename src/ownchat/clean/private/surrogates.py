"""Made-up values that look real: names in place of names, numbers of the same form in place of numbers.

They stand in ranges that are kept for fiction where there are such (555-01xx phones, ``example.com``, TEST-NET-1
addresses, test card numbers). The same type and number give the same value: nothing is kept of what it replaces but
the form of its letters and digits.
"""

from __future__ import annotations

import random

from ownchat.clean.private.checksums import is_luhn

FIRST = [
    "Alex", "Robin", "Sam", "Jamie", "Taylor", "Morgan", "Casey", "Jordan", "Avery", "Riley", "Quinn", "Rowan",
    "Skyler", "Emery", "Dana", "Kim", "Lee", "Noel", "Ariel", "Jean",
]  # fmt: skip
LAST = [
    "Miller", "Carter", "Brooks", "Hayes", "Foster", "Reed", "Coleman", "Bennett", "Parker", "Ellis", "Porter",
    "Sutton", "Marsh", "Lowe", "Barton", "Hale", "Nash", "Frost", "Webb", "Lane",
]  # fmt: skip
PLACES = [
    "Springfield", "Riverton", "Lakewood", "Fairview", "Ashford", "Brookfield", "Milton", "Greenville", "Kingsford",
    "Oakdale",
]  # fmt: skip
STREETS = [
    "Oak", "Maple", "Cedar", "Elm", "Mill", "Park", "Church", "Station", "Bridge", "Garden",
]  # fmt: skip
FIRMS = [
    "Northwind", "Bluebird", "Redwood", "Summit", "Harbor", "Lantern", "Meadow", "Granite", "Beacon", "Cobalt",
]  # fmt: skip


def surrogate(type: str, value: str, number: int) -> str:
    """A made-up value for the ``number``-th of a type; ``value`` gives the case, and the form of numbers.

    >>> surrogate("person", "Anna Berg", 1) == surrogate("person", "Cleo Blum", 1)
    True
    >>> surrogate("email", "a@b.de", 3)
    'user3@example.com'
    """
    rng = random.Random(f"{type} {number}")
    match type:
        case "person":
            first, last = FIRST[number % len(FIRST)], LAST[(number * 7 + number // len(FIRST)) % len(LAST)]
            made = f"{first} {last}" if " " in value.strip() else first
        case "email":
            return f"user{number}@example.com"
        case "username":
            return f"{'@' if value.startswith('@') else ''}user{number}"
        case "url":
            return f"https://example.com/user{number}"
        case "phone":
            return f"555-{100 + number // 100 % 900:03}-01{number % 100:02}"
        case "ip":
            return f"192.0.2.{number % 254 + 1}"
        case "card":
            made = next(text for digit in range(10) if is_luhn(text := f"4000{number:011}{digit}"))
        case "address":
            made = f"{rng.randint(1, 999)} {rng.choice(STREETS)} Street, {rng.choice(PLACES)}"
        case "place":
            made = PLACES[number % len(PLACES)]
        case "organisation":
            made = f"{FIRMS[number % len(FIRMS)]} Ltd"
        case "date" | "date_of_birth":
            made = f"{rng.randint(1, 28)} June {rng.randint(1950, 2005)}"
        case _:
            return "".join(_like(character, rng) for character in value)
    return made.lower() if value.islower() else made.upper() if value.isupper() and value.isalpha() else made


def _like(character: str, rng: random.Random) -> str:
    if character.isdigit():
        return rng.choice("0123456789")
    if character.isalpha():
        drawn = rng.choice("abcdefghijklmnopqrstuvwxyz")
        return drawn.upper() if character.isupper() else drawn
    return character
