"""WhatsApp's "Export chat": a text file whose lines start with date, time and name, by the phone's language.

WhatsApp does not publish the form. Android writes ``31.12.23, 18:05 - Ada: text``, iOS ``[31.12.23, 18:05:09] Ada:
text``; lines without such a beginning go on with the message before; lines without a name are the program's own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ownchat.config import DataConfig
from ownchat.data.chats.exports import FEW, left_out, not_such
from ownchat.data.chats.whatsapp_clock import HEADER, MARKS, ORDERS, Order, Style, find_order, moment_of, seconds_of
from ownchat.data.chats.whatsapp_phrases import what_was_said
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, unreadable
from ownchat.data.talk import Talk, Turn, not_a_turn

_DAY = 86_400.0
_MOST_HELD = 1_000  # headers without a known name that are weighed at once
_SPEAKER = re.compile(r"([^:\n]{1,100}?): ?(?=[^/]|\Z)", re.DOTALL)
_QUOTES = re.compile('["\u201c\u201d\u201e\u00ab\u00bb]')  # 'Ada changed the subject to "Trip: Rome"' is no name
_NO_LETTERS = re.compile(r"[\W_]+")
_OUTSIDE = re.compile(rf"^[{MARKS}\s~]+|[{MARKS}\s]+$")
_LOG_LEVELS = frozenset(["trace", "debug", "info", "notice", "warn", "warning", "error", "critical", "fatal"])


@dataclass(slots=True)
class _Line:
    """A message as it stands in the file, with the lines that follow."""

    number: int
    beginning: str  # header and name
    marked: bool  # in brackets, as iOS has it
    speaker: str  # empty: the program says it
    time: float | None
    parts: list[str]


@dataclass
class _Survey:
    """What a first pass over the file finds."""

    styles: Counter[Style] = field(default_factory=Counter)
    usual: frozenset[Style] = frozenset()  # a date inside a text looks different
    speakers: Counter[str] = field(default_factory=Counter)
    dates: list[tuple[int, int, int]] = field(default_factory=list)  # neighbours that are equal stand once
    padded: bool = False
    order: Order = "day"
    sure: bool = True


def recognise_whatsapp(file: InputFile) -> float:
    """Sure if most of the first lines start with date, time and name in one of WhatsApp's ways."""
    if file.magic:
        return 0.0
    lines = [line for line in file.sample[:40_000].splitlines()[:200] if line.strip()]
    found = [(header, line) for line in lines if (header := HEADER.match(line)) is not None and moment_of(header)]
    names = [name for header, line in found if (name := _split(line[header.end() :])[0])]
    if not names or all(name.casefold() in _LOG_LEVELS for name in names):
        return 0.0
    if found[0][1] is not lines[0]:
        return 0.0 if len(found) < 5 or len(names) * 3 < len(lines) else 0.6
    if "whatsapp" in file.name.lower() or file.name.endswith("_chat.txt") or any("\u200e" in line for _, line in found):
        return 0.97
    old = found[0][0]["end"] == ": "
    repeated = len(names) > len(set(names)) or len(lines) < 5
    return 0.6 if old or not repeated or len(names) * 8 < len(lines) else 0.93


def read_whatsapp(file: InputFile, data: DataConfig) -> Reading:
    """A chat. The order of its dates is inferred from the whole file; ``data.date_order`` says it where that fails."""
    return conversations(talk_of(file, data), data)


def talk_of(file: InputFile, data: DataConfig) -> Talk:
    """The export as a talk. Raises :class:`~ownchat.data.files.UnreadableFile` if no line starts as WhatsApp's do."""
    survey = _look(file, data)
    if not survey.styles:
        raise not_such(file, "messages of WhatsApp")
    owner, partner = _owner(file.name, survey.speakers)

    def turns() -> Iterator[Turn | Entry]:
        changed: Counter[str] = Counter()
        for item in _lines(file, survey):
            yield item if isinstance(item, Entry) else _turn(item, file.name, changed)
        yield from left_out(file, changed)

    halves = any(style[-1] for style in survey.usual)
    understood = f"WhatsApp, dates as {ORDERS[survey.order]}, {12 if halves else 24} hours"
    if not survey.sure:
        understood += "; no date tells whether day or month comes first, to change: --set data.date_order=month"
        understood = understood.replace("=month", "=day") if survey.order == "month" else understood
    return Talk(
        "whatsapp", file.name, turns, understood, owner=owner, crowd=len(survey.speakers) > FEW,
        owner_why=f'the name of the file: the chat with "{partner}"' if owner else "",
    )  # fmt: skip


def _look(file: InputFile, data: DataConfig) -> _Survey:
    survey = _Survey()
    names: Counter[tuple[str, Style]] = Counter()
    for _, line in file.lines():
        header = HEADER.match(line)
        if header is None or (moment := moment_of(header)) is None:
            continue
        survey.styles[moment.style] += 1
        speaker, body = _split(line[header.end() :])
        if speaker and not body.startswith("\u200e"):
            names[speaker, moment.style] += 1
        if moment.year_first:
            survey.order = "year"
            continue
        survey.padded |= header["first"].startswith("0") or header["second"].startswith("0")
        if not survey.dates or survey.dates[-1] != moment[:3]:
            survey.dates.append(moment[:3])
    most = survey.styles.total()
    survey.usual = frozenset(style for style, count in survey.styles.items() if count * 10 >= most)
    for (speaker, style), count in names.items():
        if style in survey.usual:
            survey.speakers[speaker] += count
    if data.date_order != "auto":
        survey.order = data.date_order
    elif survey.dates:
        slashes = all("/" in style[0] for style in survey.usual)
        survey.order, survey.sure = find_order(survey.dates, slashes=slashes, padded=survey.padded)
    return survey


def _split(text: str) -> tuple[str, str]:
    """The speaker of a line, empty if the program says it, and what is said."""
    match = _SPEAKER.match(text)
    if match is None or _QUOTES.search(match[1]):
        return "", text
    return _OUTSIDE.sub("", match[1]), text[match.end() :]


def _lines(file: InputFile, survey: _Survey) -> Iterator[_Line | Entry]:
    """Messages with their lines. A line that only looks like a beginning, inside a text, goes on with it."""
    held: list[_Line] = []
    for number, text in file.lines():
        header = HEADER.match(text)
        moment = moment_of(header) if header is not None else None
        if header is None or moment is None or moment.style not in survey.usual:
            if held:
                held[-1].parts.append(text)
            elif _OUTSIDE.sub("", text):
                yield unreadable(file.name, number, "text before the first message")
            continue
        speaker, body = _split(text[header.end() :])
        beginning, time = text[: len(text) - len(body)], seconds_of(moment, survey.order)
        line = _Line(number, beginning, bool(header["bracket"]), speaker, time, [body])
        if survey.speakers[speaker] > 1 or len(held) > _MOST_HELD:
            yield from _settle(held, line.time)
            held = [line]
        else:
            held.append(line)
    yield from _settle(held, math.inf)


def _settle(held: list[_Line], later: float | None) -> Iterator[_Line]:
    """The lines that are beginnings. Those that name nobody known and stand days off the order of time are none."""
    later = math.inf if later is None else later
    kept: list[_Line] = held[:1]
    for line in held[1:]:
        before = kept[-1].time
        if line.time is None or before is None or before - _DAY > later or before - _DAY <= line.time <= later + _DAY:
            kept.append(line)
        else:
            kept[-1].parts += [line.beginning, *line.parts]
    yield from kept


def _turn(line: _Line, file: str, changed: Counter[str]) -> Turn | Entry:
    if not line.speaker:
        return not_a_turn(file, line.number, "system line")
    said = what_was_said("".join(line.parts), marked=line.marked)
    if said.rule:
        return not_a_turn(file, line.number, said.rule)
    changed.update(["file left out of a message"] if said.media else [])
    return Turn(line.speaker, said.text, line.number, line.time, thread=file)


def _owner(name: str, speakers: Counter[str]) -> tuple[str, str]:
    """Whose phone it was, and the other one: the name of a file or archive of WhatsApp says with whom the chat is."""
    if len(speakers) != 2:
        return "", ""
    title = " ".join(part for part in name.split("/") if "whatsapp" in part.lower())
    title = _NO_LETTERS.sub("", title).casefold()
    one, other = speakers
    named = [_NO_LETTERS.sub("", speaker).casefold() for speaker in (one, other)]
    inside = [bool(letters) and letters in title for letters in named]
    if inside[0] == inside[1]:
        return "", ""
    return (other, one) if inside[0] else (one, other)
