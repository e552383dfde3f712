"""Made-up addresses, as they are printed, typed in haste and spoken: nobody's."""

from __future__ import annotations

import random

from tagger_values import SPOKEN

STREETS = [
    "Street", "St", "Road", "Rd", "Avenue", "Ave", "Lane", "Ln", "Drive", "Dr", "Boulevard", "Blvd", "Court", "Ct",
    "Way", "Close", "Crescent", "Place", "Square", "Terrace", "Highway", "Parkway",
]  # fmt: skip
STATES = [
    "California", "New York", "Texas", "Massachusetts", "Washington", "Ohio", "Florida", "Alabama", "North Carolina",
    "South Dakota", "New Jersey", "Arizona", "Georgia", "Illinois", "Ontario", "British Columbia", "Kent", "Essex",
    "Yorkshire", "Bayern", "Hessen", "Kerala", "Tamil Nadu", "Punjab", "Karnataka", "Lagos State", "Victoria",
    "Queensland", "CA", "NY", "TX", "MA", "WA", "AL", "FL", "IL", "NJ", "GA", "ON", "BC",
]  # fmt: skip
QUARTERS = [
    "Colony", "Nagar", "Complex", "Gardens", "Estate", "Heights", "Mall", "Village", "Residency", "Towers", "Park",
    "Layout", "Gate", "Cross", "Circle", "Expressway", "Plaza", "Quarter", "Station Road", "Market Street",
]  # fmt: skip


class Addresses:
    """Draws addresses; the class that has it draws names and places."""

    rng: random.Random
    towns: list[str]

    def spokenaddress(self) -> str:
        streets = ["street", "road", "avenue", "lane", "drive", "court", "way", "boulevard", "creek drive"]
        street = f"{self.rng.choice([self.last, self.town, self.tree])().lower()} {self.rng.choice(streets)}"
        more = self.rng.choice(
            ["", "", f" apartment {self.rng.choice(SPOKEN[1:])}", f" unit {self.rng.choice('abcd')}"]
        )
        place = self.rng.choice(["", "", " in ", " "])
        return f"{self.spokennumber()} {street}{more}{place}{self.place().lower() if place else ''}"

    def town(self) -> str:
        return self.rng.choice(self.towns)

    def tree(self) -> str:
        return self.rng.choice(
            ["Oak", "Elm", "Maple", "Cedar", "Pine", "Birch", "Park", "Mill", "Church", "Station", "Hill"]
        )

    def address(self) -> str:
        if self.rng.random() < 0.22:
            return self.hasty()
        number, street = self.house(), f"{self.last()} {self.rng.choice(STREETS)}"
        if self.rng.random() < 0.2:
            street = self.invented() + self.rng.choice(["straße", "gatan", "weg", "laan", "vej", " utca"])
        if self.rng.random() < 0.12:
            street = self.rng.choice(["Rue ", "Via ", "Calle ", "Rua ", "ul. ", "Avenue "]) + self.last()
        line = f"{number} {street}" if self.rng.random() < 0.8 else f"{street} {number}"
        if self.rng.random() < 0.3:
            line += self.rng.choice([", ", " ", "\n"]) + self.rng.choice(["Apt", "Apt.", "Suite", "Flat", "Unit", "#"])
            line += " " + self.rng.choice([self.digits(2), self.digits(3), "B", "4C"])
        if self.rng.random() < 0.75:
            comma = self.rng.choice([", ", " ", "\n"])
            place, code = self.place(), self.digits(5)
            state = self.rng.choice(STATES) if self.rng.random() < 0.7 else ""
            if self.rng.random() < 0.25:
                area = f"{self.rng.choice('ABCEGHLMNSW')}{self.digits(1)}"
                code = f"{area} {self.digits(1)}{self.rng.choice(['AB', 'XY', 'QE'])}"
            tail = f"{code} {place}" if self.rng.random() < 0.3 else f"{place} {state} {code}".replace("  ", " ")
            line += comma + tail
            if self.rng.random() < 0.15:
                line += comma + self.place()
        return line

    def house(self) -> str:
        """A house's number: "12", "221b", "10/12", "no 7"."""
        number, roll = str(self.rng.randint(1, 9999 if self.rng.random() < 0.4 else 300)), self.rng.random()
        if roll < 0.12:
            number += self.rng.choice("abcdABC")
        elif roll < 0.18:
            number += self.rng.choice("/-") + str(self.rng.randint(1, 40))
        if self.rng.random() < 0.1:
            number = self.rng.choice(["no ", "No. ", "No ", "#", "nr "]) + number
        return number

    def hasty(self) -> str:
        """Parts of an address one after the other, as people type them when asked: house, quarter, town, code."""
        area = f"{self.rng.choice([self.last, self.town, self.tree])()} {self.rng.choice(QUARTERS)}"
        street = f"{self.rng.choice([self.last, self.tree, self.town])()} {self.rng.choice(STREETS)}"
        parts = [
            self.house() if self.rng.random() < 0.8 else "",
            self.rng.choice([street, area, street + " " + area, ""]),
            self.rng.choice([self.town, self.place])(),
            self.rng.choice([*STATES, "", "", ""]) if self.rng.random() < 0.6 else "",
            self.country() if self.rng.random() < 0.15 else "",  # type: ignore[attr-defined]
            self.digits(self.rng.choice([5, 5, 6, 3])) if self.rng.random() < 0.6 else "",  # type: ignore[attr-defined]
        ]
        return self.rng.choice([" ", " ", ", "]).join(part for part in parts if part)
