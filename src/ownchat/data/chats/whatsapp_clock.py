"""How a WhatsApp export writes its dates and times: by the phone's language and settings, never said in the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from typing import Literal, NamedTuple

MARKS = "\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"  # direction marks stand before lines, names and attachments
HEADER = re.compile(
    rf"[{MARKS}]*(?P<bracket>\[?)(?P<first>\d{{1,4}})[{MARKS}]?(?P<dot>[./-]) ?"
    rf"(?P<second>\d{{1,2}})[{MARKS}]?(?P=dot) ?(?P<third>\d{{1,4}})\.?"
    r"(?P<before>[^\d\[\]\n:]{1,12}?)"  # a comma, a word ("um", "klo"), or 下午
    r"(?P<hour>\d{1,2})(?P<colon>[:.])(?P<minute>\d\d)(?:(?P=colon)(?P<second_>\d\d))?(?![:.]?\d)"
    rf"(?P<after>[^\d\[\]\n:-]{{0,12}}?)(?P<end>\][{MARKS}]? ?|[{MARKS}]? [-\u2013][{MARKS}]? |: )"
)
# the same words in other languages, as Unicode's CLDR has them for the halves of the day
_AM = frozenset((
    "am", "a", "vorm", "πμ", "öö", "ص", "上午", "午前", "오전", "凌晨", "早上", "清晨", "dop", "de", "पूर्वाह्न",
))  # fmt: skip
_PM = frozenset((
    "pm", "p", "nachm", "μμ", "ös", "م", "下午", "午後", "오후", "晚上", "中午", "傍晚", "odp", "du", "अपराह्न",
))  # fmt: skip
_WORD = re.compile(r"[^\s.,،]+")

Style = tuple[str, bool, bool, bool]  # headers of one file look the same; the last: halves of the day
Order = Literal["day", "month", "year"]
ORDERS: dict[Order, str] = {"day": "day, month, year", "month": "month, day, year", "year": "year, month, day"}


class Moment(NamedTuple):
    """The numbers of a header: its date as it stands there, and the seconds of the day."""

    first: int
    second: int
    third: int
    year_first: bool
    clock: int
    style: Style


def moment_of(header: re.Match[str]) -> Moment | None:
    """What a header says; none if its time is no time. Digits of all scripts count."""
    bracket, first, dot, middle, third, before, hours, colon, minutes, second_, after, end = header.groups()
    hour, minute, second = int(hours), int(minutes), int(second_ or 0)
    half = "" if before in (", ", " ") and not after else _half(after) or _half(before)
    if half and 1 <= hour <= 12:
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 24 or minute > 59 or second > 60 or (end[0] == "]") != bool(bracket):
        return None
    if end == ": " and not second_:  # old exports of iOS; without seconds it may be anything
        return None
    year_first = len(first) == 4
    if not year_first and len(third) not in (2, 4):
        return None
    style = (bracket + dot + colon + end.strip()[:1], year_first, second_ is not None, bool(half))
    clock = hour * 3600 + minute * 60 + second
    return Moment(int(first), int(middle), int(third), year_first, clock, style)


def seconds_of(moment: Moment, order: Order) -> float | None:
    """Seconds since 1970 on the phone's own clock; none for a date that does not exist.

    >>> seconds_of(Moment(31, 12, 20, False, 60, ("", False, False, False)), "day")
    1609372860.0
    """
    day = _ordinal(moment.first, moment.second, moment.third, "year" if moment.year_first else order)
    return None if day is None else float((day - 719_163) * 86_400 + moment.clock)


def find_order(dates: Sequence[tuple[int, int, int]], *, slashes: bool, padded: bool) -> tuple[Order, bool]:
    """What dates without a year of four digits in front start with, and whether that is certain.

    Certain is an order under which all dates exist where they do not under the other, or under which time runs
    forward more often; and without slashes the day comes first everywhere. What is left may be American, where days
    and months have no leading zero: the order under which the dates lie closer together is the likelier one.

    >>> find_order([(1, 2, 20), (13, 2, 20)], slashes=True, padded=True)
    ('day', True)
    """
    orders: tuple[Order, ...] = ("day", "month")
    wrong = {order: sum(_ordinal(*one, order) is None for one in dates) for order in orders}
    if min(wrong.values()) > len(dates) / 4:
        orders = (*orders, "year")  # rare: a year of two digits in front
        wrong["year"] = sum(_ordinal(*one, "year") is None for one in dates)
    best = min(wrong, key=lambda order: wrong[order])
    if wrong[best] < min(count for order, count in wrong.items() if order != best):
        return best, True
    gaps = {order: _gaps(dates, order) for order in orders}
    back = {order: sum(gap < 0 for gap in gaps[order]) for order in orders}
    best = min(back, key=lambda order: back[order])
    if back[best] < min(count for order, count in back.items() if order != best):
        return best, True
    if padded or not slashes:
        return "day", not slashes
    return ("month" if sum(map(abs, gaps["month"])) < sum(map(abs, gaps["day"])) else "day"), False


def _gaps(dates: Sequence[tuple[int, int, int]], order: Order) -> list[int]:
    """Days between each date and the next."""
    days = [day for one in dates if (day := _ordinal(*one, order)) is not None]
    return [later - earlier for earlier, later in pairwise(days)]


def _ordinal(first: int, second: int, third: int, order: Order) -> int | None:
    day, month, year = first, second, third
    if order == "month":
        day, month = second, first
    elif order == "year":
        day, year = third, first
    year += 2000 if year < 100 else -543 if 2400 < year < 2700 else 0  # Thai phones count from the Buddha's death
    try:
        return date(year, month, day).toordinal() if year >= 2009 else None  # no message is older than WhatsApp
    except ValueError:
        return None


def _half(words: str) -> str:
    """Which half of the day is named: "p. m." and "PM" alike."""
    word = "".join(_WORD.findall(words)).casefold()
    return "am" if word in _AM else "pm" if word in _PM else ""
