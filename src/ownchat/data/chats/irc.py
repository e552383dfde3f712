"""Logs of IRC channels, as irssi, WeeChat, HexChat, mIRC, energymech, ZNC and the Ubuntu archive write them.

One line is one message: ``[12:34] <nick> text``, with or without date, seconds and brackets; ``* nick acts``; lines of
the server (joins, modes, topics) say nothing and are dropped by a rule. A clock that jumps back means a new day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from ownchat.config import DataConfig
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading
from ownchat.data.talk import Talk, Turn, not_a_turn

FORMAT = "irc"
LOOKED_AT = 400  # lines that recognise the format
LONGEST = 64_000  # characters of one message with the lines that a bridge has broken it into
DAY = 86_400
JITTER = 3_600  # seconds: a clock that goes back less than this was put right; more: midnight

_MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6}
_MONTHS |= {"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}
_STAMP = r"""
    (?:(?P<channel>[\#&\w][\w.\#+-]*)[ ]+(?=\d{4}-\d\d-\d\d\b))?
    [\[(]?
    (?:(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[T_ \t]+
      |(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?[ ]+)?(?P<name>[A-Z][a-z][a-z])[ ]+(?P<monthday>\d\d?),?[ ]+
      |(?P<some>\d\d?[./]\d\d?[./]\d{2,4}),?[ ]+)?
    (?:[\[(]?(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d+)?)?[ ]?(?P<half>[AaPp]\.?[Mm]\.?)?
      (?:Z|[+-]\d\d:?\d\d)?[\])]?[ \t]*)?
"""
_LINE = re.compile(
    rf"""{_STAMP}(?:
      <[ ]*[~&@%+!*]?(?P<nick>[^\s<>]{{1,60}}(?:[ ][^\s<>]{{0,20}})?)>[ \t]?(?P<text>.*)
    | (?P<system>(?:-!-|\*\*\*+|===?=?|<--|-->|--+|>>>|<<<|=!=|\u2192|\u2190|\u2014)(?:[ \t].*)?)
    | (?P<notice>-[^\s<>-][^\s<>]{{0,60}}-[ ].*)
    | [ ]*\*(?P<apart>[ \t]*)(?P<actor>[~&@%+!]?[^\s<>*]{{1,60}})(?P<act>[ \t].*|$)
    )$""",
    re.VERBOSE | re.DOTALL,
)
_STAMPED = re.compile(r"[\[(]?(?:\d{4}-\d\d-\d\d|\d\d?:\d\d)\b")
_WEECHAT = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d) (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)\t"
    r"(?P<nick>[^\t]{0,60})\t(?P<text>.*)$",
    re.DOTALL,
)
_WEECHAT_SYSTEM = frozenset(["-->", "<--", "--", "=!=", "", "→", "←", "—"])
_DATED = re.compile(
    r"(?:(?:--- |\*\*\*\* )?(?:Log (?:opened|closed)|Day changed|BEGIN LOGGING AT|ENDING LOGGING AT)"
    r"|Session (?:Start|Close|Time|Ident)|\[\w+ \w+ \d+ \d{4}\]|--- \w{3} \w{3} +\d)[: ]?(?P<rest>.*)",
    re.IGNORECASE,
)
_MONTH_DAY = re.compile(r"\b([A-Z][a-z]{2})[a-z]* +(\d{1,2})\b|\b(\d{1,2}) ([A-Z][a-z]{2})[a-z]*\b")
_YEAR = re.compile(r"\b((?:19|20)\d\d)\b")
_ISO_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)(?!\d)")
_CODES = re.compile(r"\x03(?:\d{1,2}(?:,\d{1,2})?)?|[\x02\x0f\x11\x16\x1d\x1e\x1f]")  # colours, bold


def recognise_irc(file: InputFile) -> float:
    """Whether most lines of the beginning are messages of nicks, or the server's."""
    if file.magic or not file.sample:
        return 0.0
    lines = [line for line in file.sample.split("\n", 4 * LOOKED_AT)[: 4 * LOOKED_AT] if line.strip()]
    if not file.whole and len(lines) > 1:
        lines.pop()  # cut off
    lines = [line.rstrip("\r") for line in lines[:LOOKED_AT]]
    said, timed, known = 0, 0, 0
    nicks = set()
    for line in lines:
        match = _match(line)
        if match is None:
            known += _DATED.match(line) is not None
            continue
        known += 1
        if match["nick"] and match["nick"] not in _WEECHAT_SYSTEM:
            said += 1
            timed += match["hour"] is not None
            nicks.add(match["nick"])
    if not said or known < 0.5 * len(lines):
        return 0.0
    if not timed:  # <b> text is HTML: only nicks that come again are believed
        return 0.6 if said >= 4 and len(nicks) >= 2 and said >= 1.5 * len(nicks) and "</" not in file.sample else 0.0
    if said < 3:
        return 0.6 if known == len(lines) else 0.3
    return 0.95 if known >= 0.8 * len(lines) else 0.6


def read_irc(file: InputFile, data: DataConfig) -> Reading:
    """A channel's conversations; a log of two people is a talk of two."""
    nicks = {match["nick"] for line in file.sample.split("\n") if (match := _match(line)) and match["nick"]}
    crowd = len(nicks - _WEECHAT_SYSTEM) > 2
    understood = f"an IRC channel, {len(nicks):,} nicks in its beginning" if crowd else "an IRC talk of two"
    return conversations(Talk(FORMAT, file.name, lambda: turns(file), understood, crowd=crowd), data)


def turns(file: InputFile) -> Iterator[Turn | Entry]:
    """The messages of a log in order; actions are kept as text, ``* nick acts``."""
    clock = _Clock(file.name)
    held: Turn | None = None
    for number, line in file.lines():
        line = line.rstrip("\n")
        if _has_codes(line):
            line = _CODES.sub("", line)
        match = _match(line)
        if match is None:
            if not line or line.isspace():
                continue
            if dated := _DATED.match(line):
                clock.announce(dated["rest"])
            elif (
                held is not None and len(held.text) + len(line) < LONGEST and not _STAMPED.match(line)
            ):  # a line that a bridge has broken
                held.text += "\n" + line.strip()
                continue
            yield not_a_turn(file.name, number, "server" if dated else "no nick", "" if dated else line[:80])
            continue
        if held is not None:
            yield held
            held = None
        time = clock.time(match)
        kind = match.lastgroup
        if kind == "text":
            nick = match["nick"].replace(" ", "").lstrip("~&@%+!")
            text = match["text"]
            if match.re is _WEECHAT and match["nick"] in _WEECHAT_SYSTEM:
                yield not_a_turn(file.name, number, "server")
                continue
            if match.re is _WEECHAT and nick == "*":
                nick, text = text.partition(" ")[0], f"* {text}"
            held = Turn(nick or match["nick"], text.strip(), number, time, thread=_channel(match))
        elif kind == "act":
            nick = match["actor"].lstrip("~&@%+!")
            held = Turn(nick, f"* {nick}{match['act']}".rstrip(), number, time, thread=_channel(match))
        else:
            if dated := _DATED.match(line):
                clock.announce(dated["rest"])
            yield not_a_turn(file.name, number, "server")
    if held is not None:
        yield held


def _match(line: str) -> re.Match[str] | None:
    if "\t" in line and (match := _WEECHAT.match(line)):
        return match
    match = _LINE.match(line)
    if match and match["hour"] is None and (match["apart"] == "" or " " in (match["nick"] or "")):
        return None  # without a time, *text* is emphasis and <a b> is HTML
    return match


def _has_codes(line: str) -> bool:
    return not line.isprintable() and _CODES.search(line) is not None


def _channel(match: re.Match[str]) -> str:
    return (match["channel"] or "") if match.re is _LINE else ""


class _Clock:
    """Seconds since 1970 of each line; before any date is known they count from the first day."""

    def __init__(self, name: str) -> None:
        found = _ISO_DATE.search(name)
        self._day = (_days(int(found[1]), int(found[2]), int(found[3])) or 0) if found else 0
        self._last = 0.0
        self._later = 0  # seconds by which the clock lags, after it jumped back
        self._afternoon = False  # an hour above 12 was met: the clock has 24 of them
        self._year = int(found[1]) if found else 0
        self._stamp = ("", 0)

    def announce(self, text: str) -> None:
        """A line of the log's own that tells the date: "Day changed Wed Jan 03 2020"."""
        year, month_day, iso = _YEAR.search(text), _MONTH_DAY.search(text), _ISO_DATE.search(text)
        day = None
        if iso:
            day = _days(int(iso[1]), int(iso[2]), int(iso[3]))
        elif year and month_day:
            month = _MONTHS.get((month_day[1] or month_day[4]).lower(), 0)
            day = _days(int(year[1]), month, int(month_day[2] or month_day[3]))
        if day is not None:
            self._day, self._later, self._year = day, 0, date.fromordinal(day + _ORDINAL).year

    def time(self, match: re.Match[str]) -> float | None:
        hour = match["hour"]
        day = self._day
        self._dated(match)
        if self._day != day:
            self._later = 0
        if hour is None:
            return None
        seconds = int(hour) * 3600 + int(match["minute"]) * 60 + int(match["second"] or 0)
        if match.re is _LINE and match["half"]:
            seconds += 12 * 3600 * (match["half"][0] in "pP") - 12 * 3600 * (hour == "12")
        self._afternoon = self._afternoon or seconds >= 13 * 3600
        time = float(self._day * DAY + self._later + seconds)
        if time < self._last - JITTER and self._day == day:  # midnight, or noon on a clock of twelve hours
            jump = DAY if self._afternoon else DAY // 2
            self._later += jump
            time += jump
        self._last = time
        return time

    def _dated(self, match: re.Match[str]) -> None:
        """Take the date of the line, if it has one."""
        if match["year"]:
            stamp = match.string[match.start("year") : match.end("day")]
            if stamp != self._stamp[0]:
                day = _days(int(match["year"]), int(match["month"]), int(match["day"]))
                self._stamp = (stamp, self._day if day is None else day)
            self._day = self._stamp[1]
        elif match.re is _LINE and match["name"]:
            day = _days(self._year or 1970, _MONTHS.get(match["name"].lower(), 0), int(match["monthday"]))
            if day is not None:
                self._day = day


_ORDINAL = date(1970, 1, 1).toordinal()


def _days(year: int, month: int, day: int) -> int | None:
    """Days since 1970, or none for a date that does not exist.

    >>> _days(1970, 1, 2), _days(2020, 13, 1)
    (1, None)
    """
    try:
        return date(year, month, day).toordinal() - _ORDINAL
    except ValueError:
        return None
