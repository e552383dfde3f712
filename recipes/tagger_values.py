"""Made-up numbers, codes and dates, as they are written and as they are spoken: nobody's."""

from __future__ import annotations

import random

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
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
ORDINALS = ["first", "second", "third", "fourth", "fifth", "ninth", "twelfth", "twentieth", "twenty second"]


class Values:
    """Draws numbers, codes and dates."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def law(self) -> str:
        """A standard or a form of contract: "AB 04", "ISO 9001", "BBR 9:1"."""
        letters = "".join(self.rng.choice("ABCDEFGHIKLMNOPRSTUVX") for _ in range(self.rng.randint(2, 5)))
        number = self.digits(self.rng.randint(1, 5))
        return (
            letters
            + self.rng.choice([" ", " ", " ", "", "-"])
            + number
            + self.rng.choice(["", "", "", ":" + self.digits(1)])
        )

    def model(self) -> str:
        letters = "".join(self.rng.choice("abcdefghiklmnoprstuvx") for _ in range(self.rng.randint(1, 3)))
        maker = self.rng.choice(
            ["canon", "nikon", "sony", "nokia", "samsung", "dell", "hp", "asus", "the", "lg", "amd"]
        )
        code = f"{letters}{self.rng.choice(['', '', '-', ' '])}{self.digits(self.rng.randint(2, 4))}"
        text = f"{maker} {code}{self.rng.choice(['', '', 'x', 'z', 's'])}"
        return text if self.rng.random() < 0.6 else text.title() if self.rng.random() < 0.5 else text.upper()

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

    def phone(self) -> str:
        a, b, c = self.digits(3), self.digits(3), self.digits(4)
        kinds = [f"({a}) {b}-{c}", f"{a}-{b}-{c}", f"{a} {b} {c}", f"{a}.{b}.{c}", a + b + c, f"+1 {a} {b} {c}",
            f"+44 {self.digits(4)} {self.digits(6)}", f"+49 {a} {self.digits(7)}", f"0{a} {self.digits(6)}",
            f"{a} {b}{c}", f"{b}-{c}", f"+91 {self.digits(5)} {self.digits(5)}", f"00{a}{b}{c}",
            " ".join(SPOKEN[int(digit)] for digit in a + b + c), f"{a}-{b}-{c}x{self.digits(3)}"]  # fmt: skip
        return self.rng.choice(kinds)

    def spoken(self, count: int) -> str:
        words = [self.rng.choice([*SPOKEN[1:], "oh", "zero"]) for _ in range(count)]
        if self.rng.random() < 0.2:
            words[self.rng.randrange(count)] = self.rng.choice(["double", "triple"]) + " " + self.rng.choice(SPOKEN)
        if self.rng.random() < 0.15:
            words[-3:] = [self.rng.choice(SPOKEN[1:]), "hundred"]
        return " ".join(words)

    def spokenphone(self) -> str:
        return self.spoken(self.rng.choice([7, 10, 10, 11]))

    def spokenaccount(self) -> str:
        return self.spoken(self.rng.randint(6, 11))

    def spokencard(self) -> str:
        return self.spoken(self.rng.choice([4, 16, 16]))

    def spokensocial(self) -> str:
        return self.spoken(self.rng.choice([4, 9]))

    def spokennumber(self) -> str:
        tens = self.rng.choice(TENS) + self.rng.choice(["", " " + self.rng.choice(SPOKEN[1:])])
        few = self.rng.choice([self.rng.choice(TEENS), tens, tens])
        front = self.rng.choice(["", self.rng.choice(SPOKEN[1:]) + " hundred ", self.rng.choice(SPOKEN[1:]) + " "])
        return front + few if self.rng.random() < 0.85 else self.rng.choice([*TEENS, *SPOKEN[1:]]) + " hundred"

    def spokendate(self) -> str:
        year = f"{self.rng.choice(['nineteen', 'twenty'])} {self.rng.choice(TENS)} {self.rng.choice(SPOKEN[1:])}"
        month, day = self.rng.choice(MONTHS).lower(), self.rng.choice(ORDINALS)
        return f"{month} {day} {year}" if self.rng.random() < 0.6 else f"the {day} of {month} {year}"

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

    def number(self) -> str:
        """A plain number that counts or measures something."""
        roll, digits = self.rng.random(), self.rng.choice([1, 2, 2, 3, 3, 4, 4, 5, 6])
        value = self.rng.randint(10 ** (digits - 1), 10**digits - 1)
        if roll < 0.15:
            return f"{value}.{self.rng.randint(0, 9)}"
        if roll < 0.25:
            return f"{value:,}"
        return f"{value / 7:.{self.rng.randint(1, 5)}f}" if roll < 0.3 else str(value)

    def stamp(self) -> str:
        """A moment as machines write it."""
        rng = self.rng
        day = f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        clock = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
        return rng.choice(
            [f"{day}T{clock}Z", f"{day} {clock}", f"{day}T{clock}+02:00", f"{clock}.{rng.randint(0, 999):03}"]
        )

    def plainreference(self) -> str:
        """The number of an order, a ticket, a claim: nothing but digits."""
        return self.digits(self.rng.choice([4, 5, 5, 6, 6, 7, 8, 8, 9, 10]))
