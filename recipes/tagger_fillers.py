"""Made-up people, addresses and numbers for the sentences of ``tagger_templates.py``: nobody who is."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter

from tagger_addresses import Addresses
from tagger_names import COUNTRIES, ORIGINS, towns
from tagger_registers import COURT, LETTERS, NOTHING, SPEECH
from tagger_templates import NEGATIVES, TEMPLATES
from tagger_values import SPOKEN, Values

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
    "Judge", "Officer", "Sgt.", "Captain", "Fr.", "Herr", "Frau", "M.", "Mme", "Professor", "Sergeant",
    "District Judge",
    "Inspector", "Detective", "Sri", "Smt.", "Shri", "Don", "Doña", "Madame", "Monsieur", "Mr Justice", "Mr",
    "Mr", "Ms",
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

SPOKEN_TITLES = ["mister", "misses", "miss", "doctor", "professor", "officer", "sergeant", "mrs", "mr", "attorney"]
OFFICES = [  # how authorities, laws and associations end in languages whose words grow together
    "verket", "styrelsen", "myndigheten", "nämnden", "balken", "lagen", "förbundet", "föreningen", "branschen", "rådet",
    "lov", "skatt", "amt", "gesetz", "verordnung", "behörde", "kammer", "ordnung", "kasse", "ministerium", "kommission",
    "wet", "raad", "dienst", "loven", "direktoratet", "rijk", "urząd", "agenzia", "ordning",
]  # fmt: skip

SLOT = re.compile(r"\{(\w+)\}")
LABEL_OF = {
    "first": "person",
    "last": "person",
    "personupper": "person",
    "lastupper": "person",
    "title": "person",
    "initials": "person",
    "placeupper": "place",
    "caseno": "reference",
    "year": "date",
    "zip": "address",
    "card4": "card",
    "card3": "card",
    "national_id4": "national_id",
    "country": "place",
    "countryupper": "place",
    "dotted": "person",
    "agency": "organisation",
    "spokentitle": "person",
    "plainreference": "reference",
    "spelled": "person",
    "spokenphone": "phone",
    "spokenaddress": "address",
    "spokencode": "reference",
    "spokenaccount": "bank_account",
    "spokencard": "card",
    "spokensocial": "national_id",
    "spokendate": "date",
}
UNLABELLED = ("n", "role", "law", "model", "tool", "number", "stamp")


class Fillers(Addresses, Values):
    """Draws values for slots. ``firsts``, ``lasts``, ``places``: words of the labelled sets' training part."""

    def __init__(self, rng: random.Random, firsts: list[str], lasts: list[str], places: list[str]) -> None:
        super().__init__(rng)
        self.firsts, self.lasts, self.places = firsts, lasts, places
        self.towns = towns()
        self.origins = [(first.split(), last.split()) for first, last in ORIGINS.values()]
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

    def foreign(self, part: int) -> str:
        """A given (0) or family name (1) of some origin, at times without its marks."""
        word = self.rng.choice(self.rng.choice(self.origins)[part])
        return plain(word) if self.rng.random() < 0.3 else word

    def first(self) -> str:
        if self.rng.random() < 0.22:
            return self.foreign(0)
        return self.rng.choice(self.firsts) if self.rng.random() < 0.7 else self.invented()

    def last(self) -> str:
        roll = self.rng.random()
        word = self.rng.choice(self.lasts) if roll < 0.3 else self.foreign(1) if roll < 0.5 else self.invented()
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
        if roll < 0.2:  # both names of one origin
            firsts, lasts = self.rng.choice(self.origins)
            name = f"{self.rng.choice(firsts)} {self.rng.choice(lasts)}"
            return plain(name) if self.rng.random() < 0.3 else name
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
        roll = self.rng.random()
        if roll < 0.45:
            return self.rng.choice(self.places)
        return self.rng.choice(self.towns) if roll < 0.85 else self.country() if roll < 0.92 else self.invented()

    def country(self) -> str:
        return self.rng.choice(COUNTRIES)

    def countryupper(self) -> str:
        return self.country().upper()

    def dotted(self) -> str:
        """A name that the court has shortened: "A.B.", "M. S.", "Kh.D.", "X"."""
        roll, letters = self.rng.random(), "ABCDEFGHIJKLMNOPRSTVWZ"
        if roll < 0.1:
            return self.rng.choice("XYZNABM") + self.rng.choice([".", ""])
        count = self.rng.choice([2, 2, 2, 3])
        parts = [
            self.rng.choice(letters) + (self.rng.choice("hu") if self.rng.random() < 0.05 else "") for _ in range(count)
        ]
        return (". " if roll > 0.9 else ".").join(parts) + "."

    def agency(self) -> str:
        """An authority, law or term of another language, one word that looks like nobody's and is nobody's."""
        word = self.invented()[: self.rng.randint(4, 9)] + self.rng.choice(OFFICES)
        return word if self.rng.random() < 0.8 else word.lower()

    def tool(self) -> str:
        """The name of a program."""
        word = self.invented().lower()[: self.rng.randint(2, 6)]
        form = self.rng.choice(
            ["{}", "g{}", "k{}", "x{}", "lib{}", "{}d", "{}fs", "{}conf", "{}-utils", "py{}", "{}player"]
        )
        known = [
            "vim",
            "nano",
            "gtk",
            "kde",
            "gnome",
            "grub",
            "mplayer",
            "apt",
            "dpkg",
            "Xorg",
            "firefox",
            "bash",
            "npm",
            "git",
        ]
        return form.format(word) if self.rng.random() < 0.7 else self.rng.choice(known)

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

    def spokentitle(self) -> str:
        return self.rng.choice(SPOKEN_TITLES)

    def spelled(self) -> str:
        return " ".join(plain(self.last()).lower().replace(" ", "").replace("'", "").replace("-", ""))

    def spokencode(self) -> str:
        parts = []
        for _ in range(self.rng.randint(4, 7)):
            letter, roll = self.rng.choice("abcdefghijklmnopqrstuvwxyz"), self.rng.random()
            parts.append(
                self.rng.choice(SPOKEN)
                if roll < 0.6
                else f"{letter} as in {self.first().lower()}"
                if roll < 0.7
                else letter
            )
        return " ".join(parts)


def fill(template: str, fillers: Fillers) -> tuple[str, list[tuple[int, int, str]]]:
    """A template's text, and its spans ``(start, end, label)``."""
    text, spans, last = "", [], 0
    template = template.replace("\\n", "\n")
    for match in SLOT.finditer(template):
        text += template[last : match.start()]
        name = match[1]
        value = str(fillers.rng.randint(1, 200)) if name == "n" else getattr(fillers, name)()
        if name not in UNLABELLED:
            spans.append((len(text), len(text) + len(value), LABEL_OF.get(name, name)))
        text += value
        last = match.end()
    return text + template[last:], spans


POOLS = (TEMPLATES, COURT, LETTERS, SPEECH)
SHARES = (0.5, 0.2, 0.14, 0.16)  # of the texts that hold something private


def made_up(count: int, fillers: Fillers) -> list[tuple[str, list[tuple[int, int, str]]]]:
    """``count`` texts; a fourth hold nothing private, a quarter are two to five sentences together."""
    rows, rng = [], fillers.rng
    for _ in range(count):
        roll = rng.random()
        if roll < 0.25:
            rows.append(fill(rng.choice(NEGATIVES if rng.random() < 0.4 else NOTHING), fillers))
            continue
        pool = rng.choices(POOLS, SHARES)[0]
        text, spans = fill(rng.choice(pool), fillers)
        if roll > 0.75:
            for _ in range(rng.randint(1, 4)):
                near = pool if rng.random() < 0.6 else rng.choice([TEMPLATES, NEGATIVES, NOTHING])
                more, others = fill(rng.choice(near), fillers)
                text += " " if pool is SPEECH else rng.choice([" ", ". ", "\n", " and "])
                spans += [(start + len(text), end + len(text), label) for start, end, label in others]
                text += more
        rows.append((text, spans))
    return rows


def plain(text: str) -> str:
    """Letters without their marks."""
    letters = unicodedata.normalize("NFD", text.replace("ł", "l").replace("Ł", "L").replace("ı", "i").replace("ø", "o"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
