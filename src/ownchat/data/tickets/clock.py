"""Times in a column of a table: ISO 8601, seconds since 1970, mail dates, and dates as a country writes them.

Whether 05/01/2024 is in January or in May is told by the whole column: by days that no month has, and by how close
together the messages of one conversation lie. Rows of such tables are often in no order, so their order tells nothing.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from ownchat.data.tickets.fields import moment

Order = Literal["day", "month", "year"]
ORDERS: dict[Order, str] = {"day": "day, month, year", "month": "month, day, year", "year": "year, month, day"}
MOST_UNREAD = 0.1  # share of times that cannot be read: with more of them, none orders the rows
UNKNOWN = float("nan")

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_CLOCK = r"(\d{1,2})[:.h](\d\d)(?:[:.](\d\d)(?:[.,]\d{1,6})?)?\s*([AaPp])?\.?\s?(?:[Mm]\.?)?(?:\s?Uhr)?"
_TIME = re.compile(_CLOCK)
_LOCAL = re.compile(
    r"(\d{1,4})([./-])\s?(\d{1,2})\2\s?(\d{1,4})\.?"
    rf"(?:(?:T|[,\s]+(?:um|at|à|a las|alle|om|kl\.?|klo|-|–)?\s*){_CLOCK})?"
)


class Clock:
    """Reads a column of times, row by row; :meth:`seconds` gives all of them once the column is known.

    ``order``: ``data.date_order``; "auto" looks for itself.
    """

    def __init__(self, order: Literal["auto", "day", "month", "year"] = "auto") -> None:
        self.notes: list[str] = []  # for people, after seconds()
        self.understood = ""  # 'dates as day, month, year'
        self._asked = order
        self._times: dict[Order, array[float]] = {"day": array("d"), "month": array("d"), "year": array("d")}
        self._filled = self._local = self._slashes = self._halves = 0
        self._example = self._unread = ""  # of a local date, of a time that cannot be read

    def add(self, text: str) -> None:
        """The time of the next row; empty: it has none."""
        text = " ".join(text.split())
        self._filled += bool(text)
        match = _LOCAL.fullmatch(text)
        if match is not None and len(match[1]) < 4:
            self._add_local(match, text)
            return
        seconds = _seconds(text, match) if text else None
        if text and seconds is None:
            self._unread = self._unread or text
        for times in self._times.values():
            times.append(UNKNOWN if seconds is None else seconds)

    def seconds(self, threads: Sequence[int]) -> array[float]:
        """Seconds since 1970 for each row, NaN where they are not known. ``threads``: the conversation of each."""
        order = self._order(threads)
        times = self._times[order]
        if self._local:
            self.understood = f"dates as {ORDERS[order]}"
        read = sum(time == time for time in times)  # NaN is unequal to itself
        if read < self._filled:
            example = self._unread or self._example
            said = f'{self._filled - read:,} of {self._filled:,} times cannot be read (such as "{example}"): '
            if self._filled - read > MOST_UNREAD * self._filled:
                self.notes.append(f"{said}messages stay in the order of the file; write times as 2024-01-31 15:04")
                return array("d", [UNKNOWN]) * len(times)
            self.notes.append(f"{said}these messages stay behind the one before them in the file")
        return times

    def _add_local(self, match: re.Match[str], text: str) -> None:
        first, second, third = int(match[1]), int(match[3]), int(match[4])
        clock = _clock(match.group(5, 6, 7, 8)) if match[5] else 0
        self._local += 1
        self._slashes += match[2] == "/"
        self._halves += match[8] is not None
        self._example = self._example or text
        for order, (year, month, day) in _readings(first, second, third).items():
            found = None if clock is None else _at(year, month, day, clock)
            self._times[order].append(UNKNOWN if found is None else found)

    def _order(self, threads: Sequence[int]) -> Order:
        if self._asked != "auto":
            return self._asked
        if not self._local:
            return "day"
        read = {order: sum(time == time for time in times) for order, times in self._times.items()}
        if max(read["day"], read["month"]) < 0.5 * read["year"]:
            return "year"  # rare: a year of two digits in front
        if read["day"] != read["month"]:
            return "day" if read["day"] > read["month"] else "month"
        spans = {order: _spans(self._times[order], threads) for order in ("day", "month")}
        if spans["day"] < 0.5 * spans["month"]:
            return "day"
        if spans["month"] < 0.5 * spans["day"]:
            return "month"
        if not self._slashes:
            return "day"  # with dots or hyphens the day comes first wherever the year is last
        order: Order = "month" if self._halves else "day"  # a.m. and p.m. beside slashes: mostly the United States
        self.notes.append(
            f'"{self._example}" may begin with the day or the month: it is read as {ORDERS[order]} '
            "(to change: data.date_order)"
        )
        return order


def in_order(rows: int, times: Sequence[float], threads: Sequence[int]) -> list[int]:
    """The rows, conversation by conversation, in order of time; a row without a time stays behind the one before it."""
    places: list[float] = []
    last: dict[int, float] = {}
    for row in range(rows):
        time = times[row]
        places.append(last.get(threads[row], -float("inf")) if time != time else time)
        last[threads[row]] = places[-1]
    return sorted(range(rows), key=lambda row: (threads[row], places[row], row))


# ----------------------------------------------------------------------------------------------------------------


def _seconds(text: str, match: re.Match[str] | None) -> float | None:
    """What needs no order: a plain number (the number of a turn may be 0), a clock, a year in front, ISO, a mail's."""
    if _NUMBER.fullmatch(text):
        return 0.0 if float(text) == 0 else moment(text)
    if bare := _TIME.fullmatch(text):
        clock = _clock(bare.groups())
        return None if clock is None else float(clock)
    if match is not None and moment(text) is None:
        clock = _clock(match.group(5, 6, 7, 8)) if match[5] else 0
        return None if clock is None else _at(int(match[1]), int(match[3]), int(match[4]), clock)
    return moment(text)


def _clock(parts: Sequence[str | None]) -> int | None:
    """Seconds of the day."""
    hour, minute, second = (int(part or 0) for part in parts[:3])
    if parts[3]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if parts[3] in "pP" else 0)
    return hour * 3600 + minute * 60 + second if hour <= 24 and minute <= 59 and second <= 60 else None


def _readings(first: int, second: int, third: int) -> dict[Order, tuple[int, int, int]]:
    """Year, month and day under each order."""
    return {"day": (third, second, first), "month": (third, first, second), "year": (first, second, third)}


def _at(year: int, month: int, day: int, clock: int) -> float | None:
    if year < 100:
        year += 2000 if year < 70 else 1900
    try:
        return datetime(year, month, day, tzinfo=UTC).timestamp() + clock if 1970 <= year < 2100 else None
    except ValueError:
        return None


def _spans(times: Iterable[float], threads: Sequence[int]) -> float:
    """How long the conversations last, all together."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for time, thread in zip(times, threads, strict=True):
        if time == time:
            first[thread] = min(first.get(thread, time), time)
            last[thread] = max(last.get(thread, time), time)
    return sum(last[thread] - first[thread] for thread in first)
