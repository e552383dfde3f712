"""Made-up people, addresses and numbers for the sentences of ``tagger_templates.py``: nobody who is."""

from __future__ import annotations

import random
import re
from collections import Counter

from tagger_templates import NEGATIVES, TEMPLATES

MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
DAYS = [
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
]  # fmt: skip
SPOKEN = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
]  # fmt: skip
PARTICLES = [
    "van der", "van", "de", "de la", "von", "di", "da", "bin", "al-", "O'", "Mac", "Le", "El-", "St. ",
]  # fmt: skip
ENDINGS = [
    "ski", "ska", "wicz", "ova", "ov", "ev", "enko", "chuk", "sson", "sen", "dottir", "ez", "es", "oğlu", "ić",
    "vić", "ian", "yan", "idis", "poulos", "nen", "li", "ini", "etti", "eau", "ard", "mann", "berg", "stein", "er",
    "ton", "son", "ham", "ley", "worth", "wood", "an", "am", "raj", "esh", "pal", "war", "gupta", "singh", "oko",
    "ade", "nga", "wa", "moto", "mura", "naka",
]  # fmt: skip
TITLES = [
    "Mr", "Mr.", "Mrs", "Mrs.", "Ms", "Ms.", "Dr", "Dr.", "Prof.", "Miss", "Sir", "Judge", "Justice", "Lord",
    "Judge", "Officer", "Sgt.", "Captain", "Fr.", "Herr", "Frau", "M.", "Mme",
]  # fmt: skip
STREETS = [
    "Street", "St", "Road", "Rd", "Avenue", "Ave", "Lane", "Ln", "Drive", "Dr", "Boulevard", "Blvd", "Court", "Ct",
    "Way", "Close", "Crescent", "Place", "Square", "Terrace", "Highway", "Parkway",
]  # fmt: skip
ROLES = [
    "President", "Judge", "Registrar", "Rapporteur", "Clerk", "Counsel", "Agent", "Solicitor", "Barrister",
    "Attorney", "Magistrate",
]  # fmt: skip
LEGAL_FORMS = [
    "Ltd", "Limited", "Inc.", "Inc", "LLC", "plc", "GmbH", "AG", "S.A.", "B.V.", "Corp.", "Corporation", "&", "Sons",
    "Co.", "Group", "Holdings", "Partners", "Bank", "Insurance", "Airlines", "Hospital", "University", "Foundation",
]  # fmt: skip
BODIES = [
    "{place} District Court", "{place} Regional Court", "{place} Court of Appeal", "Supreme Court of {place}",
    "Ministry of Justice", "Ministry of the Interior", "{place} City Council", "University of {place}",
    "{place} General Hospital", "{place} Police Department", "Bank of {place}", "{place} Magistrates' Court",
    "Court of Cassation", "Constitutional Court", "High Court", "Supreme Court", "Department of Health",
    "{place} Prosecutor's Office", "{place} Remand Prison", "Federal Bureau of Investigation", "Crown Court",
    "{place} Administrative Court", "Council of Europe", "{last} & {last} LLP", "Law Offices of {last}",
]  # fmt: skip

SLOT = re.compile(r"\{(\w+)\}")
LABEL_OF = {
    "first": "person", "last": "person", "personupper": "person", "lastupper": "person", "title": "person",
    "initials": "person", "placeupper": "place", "caseno": "reference", "year": "date", "zip": "address",
    "card4": "card", "card3": "card", "national_id4": "national_id",
}  # fmt: skip


class Fillers:
    """Draws values for slots. ``firsts``, ``lasts``, ``places``: words of the labelled sets' training part."""

    def __init__(self, rng: random.Random, firsts: list[str], lasts: list[str], places: list[str]) -> None:
        self.rng, self.firsts, self.lasts, self.places = rng, firsts, lasts, places
        self.chain: dict[str, Counter[str]] = {}
        for name in firsts + lasts:
            padded = f"^^{name.lower()}$"
            for i in range(len(padded) - 2):
                self.chain.setdefault(padded[i : i + 2], Counter())[padded[i + 2]] += 1

    def invented(self) -> str:
        """A name that no one need have, letter by letter."""
        text = "^^"
        while len(text) < 14:
            following = self.chain[text[-2:]]
            letter = self.rng.choices(list(following), list(following.values()))[0]
            if letter == "$":
                break
            text += letter
        word = text[2:]
        if self.rng.random() < 0.35:
            word = word[: self.rng.randint(2, 5)] + self.rng.choice(ENDINGS)
        return word.title() if len(word) > 1 else "Lee"

    def first(self) -> str:
        return self.rng.choice(self.firsts) if self.rng.random() < 0.7 else self.invented()

    def last(self) -> str:
        word = self.rng.choice(self.lasts) if self.rng.random() < 0.4 else self.invented()
        roll = self.rng.random()
        if roll < 0.06:
            particle = self.rng.choice(PARTICLES)
            word = particle + ("" if particle[-1] in "-' " else " ") + word
        elif roll < 0.1:
            word += "-" + self.invented()
        return word

    def initials(self) -> str:
        marks = self.rng.choice([".", ".", ""])
        return " ".join(self.rng.choice("ABCDEFGHIJKLMNOPRSTVWZ") + marks for _ in range(self.rng.choice([1, 1, 2])))

    def person(self) -> str:
        roll = self.rng.random()
        if roll < 0.72:
            return f"{self.first()} {self.last()}"
        if roll < 0.8:
            return f"{self.first()} {self.initials().split()[0]} {self.last()}"
        if roll < 0.86:
            return f"{self.first()} {self.first()} {self.last()}"
        if roll < 0.93:
            return f"{self.initials()} {self.last()}"
        return f"{self.last()}, {self.first()}" if roll < 0.96 else self.first()

    def title(self) -> str:
        return self.rng.choice(TITLES)

    def role(self) -> str:
        return self.rng.choice(ROLES)

    def place(self) -> str:
        return self.rng.choice(self.places) if self.rng.random() < 0.8 else self.invented()

    def placeupper(self) -> str:
        return self.place().upper()

    def personupper(self) -> str:
        return self.person().upper()

    def lastupper(self) -> str:
        return self.last().upper()

    def organisation(self) -> str:
        if self.rng.random() < 0.5:
            return f"{self.last()} {self.rng.choice(LEGAL_FORMS)}"
        body = self.rng.choice(BODIES)
        return SLOT.sub(lambda match: getattr(self, match[1])(), body)

    def digits(self, count: int) -> str:
        return "".join(self.rng.choice("0123456789") for _ in range(count))

    def grouped(self, count: int) -> str:
        """Digits in one piece, in groups, or spoken."""
        text, roll = self.digits(count), self.rng.random()
        if roll < 0.5 or count < 5:
            return text
        if roll < 0.58:
            return " ".join(SPOKEN[int(digit)] for digit in text)
        size, mark = self.rng.choice([2, 3, 4, 4, 5]), self.rng.choice(" - .  -")
        return mark.join(text[i : i + size] for i in range(0, count, size))

    def code(self) -> str:
        """Letters and digits, as shops and airlines number things."""
        letters = "".join(self.rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(self.rng.randint(1, 4)))
        digits, mark = self.digits(self.rng.randint(2, 8)), self.rng.choice(["", "", "-", " ", "/", "_"])
        roll = self.rng.random()
        if roll < 0.3:
            return letters + mark + digits
        if roll < 0.45:
            return digits + mark + letters
        if roll < 0.6:
            return letters + mark + digits + mark + self.rng.choice("ABCDEFXYZ") + self.digits(2)
        if roll < 0.7:
            return "".join(self.rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789") for _ in range(6))
        return self.grouped(self.rng.randint(3, 12))

    def reference(self) -> str:
        return self.code()

    def caseno(self) -> str:
        number, year = self.digits(self.rng.randint(2, 5)), self.digits(2)
        kinds = [f"{number}/{year}", f"{number}/19{year}", f"{number}/20{year}", f"20{year}-{number}"]
        kinds += [f"{self.rng.choice('KACPW')} {number}/{year}", f"1:{year}-cv-{number}", f"II {number}/{year}"]
        return self.rng.choice(kinds)

    def bank_account(self) -> str:
        if self.rng.random() < 0.15:
            return self.rng.choice(["DE", "GB", "FR", "NL", "ES", "PL"]) + self.digits(2) + " " + self.grouped(16)
        return self.code() if self.rng.random() < 0.15 else self.grouped(self.rng.randint(4, 14))

    def card(self) -> str:
        if self.rng.random() < 0.5:
            text = self.digits(16)
            return self.rng.choice([" ", "-", ""]).join(text[i : i + 4] for i in range(0, 16, 4))
        return self.grouped(self.rng.choice([4, 13, 15, 16, 16]))

    def card4(self) -> str:
        return self.grouped(4)

    def card3(self) -> str:
        return self.digits(3)

    def national_id4(self) -> str:
        return self.digits(4)

    def national_id(self) -> str:
        text, mark = self.digits(9), self.rng.choice(["-", " ", ""])
        if self.rng.random() < 0.5:
            return mark.join([text[:3], text[3:5], text[5:]])
        if self.rng.random() < 0.2:
            return f"{self.rng.choice('ABCEGHJ')}{self.rng.choice('ABCEGHJ')}{mark}{self.digits(6)}{mark}C"
        return self.grouped(self.rng.choice([9, 10, 11, 12]))

    def passport(self) -> str:
        letters = "".join(self.rng.choice("ABCDEFGHKLMNPRSTXYZ") for _ in range(self.rng.choice([0, 1, 1, 2])))
        return letters + self.digits(self.rng.choice([7, 8, 9]))

    def driving_licence(self) -> str:
        return (
            self.rng.choice("ABCDEFGHKLMSTWY") + self.rng.choice(["", "-"]) + self.grouped(self.rng.choice([7, 8, 12]))
        )

    def tax_id(self) -> str:
        if self.rng.random() < 0.5:
            return f"{self.digits(2)}-{self.digits(7)}"
        return self.rng.choice(["", "DE", "GB", "FR", "ES"]) + self.digits(9)

    def zip(self) -> str:
        return self.rng.choice([self.digits(5), self.digits(5), self.digits(6), f"{self.digits(5)}-{self.digits(4)}"])

    def password(self) -> str:
        word = self.rng.choice([self.first, self.invented, self.last])().replace(" ", "")
        marks = self.rng.choice(["!", "@", "#", "$", "", "", "_"])
        roll = self.rng.random()
        if roll < 0.5:
            return word + marks + self.digits(self.rng.randint(1, 4)) + self.rng.choice(["", "", "!"])
        if roll < 0.7:
            return word.lower() + " " + self.digits(self.rng.randint(2, 4))
        alphabet = "abcdefghkmnpqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ23456789!@#$%^&*"
        return "".join(self.rng.choice(alphabet) for _ in range(self.rng.randint(6, 14)))

    def username(self) -> str:
        name = self.first().lower() + self.rng.choice(["", "_", ".", ""]) + self.last().lower().replace(" ", "")[:6]
        return name + self.rng.choice(["", self.digits(2), self.digits(4)])

    def email(self) -> str:
        name, roll = self.username(), self.rng.random()
        host = self.rng.choice(
            ["gmail", "yahoo", "hotmail", "outlook", "rediffmail", self.last().lower().replace(" ", "")]
        )
        ending = self.rng.choice(["com", "com", "net", "org", "co.uk", "de", "in"])
        if roll < 0.4:
            return f"{name}@{host}.{ending}"
        if roll < 0.55:
            return f"{name} {host}{ending}".replace(".", "")
        if roll < 0.7:
            return f"{name} {self.digits(2)} {host}{ending}".replace(".", "")
        return f"{name} at {host} dot {ending}".replace("_", " underscore ")

    def phone(self) -> str:
        a, b, c = self.digits(3), self.digits(3), self.digits(4)
        kinds = [f"({a}) {b}-{c}", f"{a}-{b}-{c}", f"{a} {b} {c}", f"{a}.{b}.{c}", a + b + c, f"+1 {a} {b} {c}",
            f"+44 {self.digits(4)} {self.digits(6)}", f"+49 {a} {self.digits(7)}", f"0{a} {self.digits(6)}",
            f"{a} {b}{c}", f"{b}-{c}", f"+91 {self.digits(5)} {self.digits(5)}", f"00{a}{b}{c}",
            " ".join(SPOKEN[int(digit)] for digit in a + b + c), f"{a}-{b}-{c}x{self.digits(3)}"]  # fmt: skip
        return self.rng.choice(kinds)

    def year(self) -> str:
        return str(self.rng.randint(1925, 2025))

    def date(self) -> str:
        day, month, year = self.rng.randint(1, 28), self.rng.choice(MONTHS), self.year()
        number = MONTHS.index(month) + 1
        return self.rng.choice([
            f"{day} {month} {year}", f"{month} {day}, {year}", f"{day} {month}", f"{month} {year}", year,
            f"{year}-{number:02}-{day:02}", f"{day:02}/{number:02}/{year}", f"{number}/{day}/{year[2:]}",
            f"{day}.{number}.{year}", f"{day}th of {month}", self.rng.choice(DAYS),
            f"{self.rng.choice(DAYS)}, {month} {day}",
            f"{day} {month[:3]} {year}", f"{month[:3]} {day}", "yesterday", "tomorrow", "next week", "last year",
        ])  # fmt: skip

    def address(self) -> str:
        number, street = str(self.rng.randint(1, 9999)), f"{self.last()} {self.rng.choice(STREETS)}"
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
            state = self.rng.choice(["CA", "NY", "TX", "MA", "WA", "Ohio", "Florida", "", "", ""])
            if self.rng.random() < 0.25:
                area = f"{self.rng.choice('ABCEGHLMNSW')}{self.digits(1)}"
                code = f"{area} {self.digits(1)}{self.rng.choice(['AB', 'XY', 'QE'])}"
            tail = f"{code} {place}" if self.rng.random() < 0.3 else f"{place} {state} {code}".replace("  ", " ")
            line += comma + tail
            if self.rng.random() < 0.15:
                line += comma + self.place()
        return line


def fill(template: str, fillers: Fillers) -> tuple[str, list[tuple[int, int, str]]]:
    """A template's text, and its spans ``(start, end, label)``."""
    text, spans, last = "", [], 0
    template = template.replace("\\n", "\n")
    for match in SLOT.finditer(template):
        text += template[last : match.start()]
        name = match[1]
        value = str(fillers.rng.randint(1, 200)) if name == "n" else getattr(fillers, name)()
        if name not in ("n", "role"):
            spans.append((len(text), len(text) + len(value), LABEL_OF.get(name, name)))
        text += value
        last = match.end()
    return text + template[last:], spans


def made_up(count: int, fillers: Fillers) -> list[tuple[str, list[tuple[int, int, str]]]]:
    """``count`` texts; a fifth are negatives, a quarter are two to five sentences together."""
    rows = []
    for _ in range(count):
        roll = fillers.rng.random()
        if roll < 0.2:
            rows.append(fill(fillers.rng.choice(NEGATIVES), fillers))
            continue
        text, spans = fill(fillers.rng.choice(TEMPLATES), fillers)
        if roll > 0.75:
            for _ in range(fillers.rng.randint(1, 4)):
                pool = NEGATIVES if fillers.rng.random() < 0.4 else TEMPLATES
                more, others = fill(fillers.rng.choice(pool), fillers)
                text += fillers.rng.choice([" ", ". ", "\n", " and "])
                spans += [(start + len(text), end + len(text), label) for start, end, label in others]
                text += more
        rows.append((text, spans))
    return rows
