"""Subtitles: SubRip (``.srt``) and WebVTT (https://www.w3.org/TR/webvtt1/).

Where cues say who speaks (``<v Anna>``, ``ANNA: ...``) they become turns, and what follows without a name goes on with
the same speaker; other subtitles become one document, a paragraph for each pause.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ownchat.config import DataConfig
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, document, row_id
from ownchat.data.records import Record
from ownchat.data.talk import Talk, Turn, not_a_turn

FORMAT = "subtitles"
PARAGRAPH = 2.0  # seconds of silence between paragraphs of a document
LONGEST = 1_000_000  # characters of one document, and of one turn
LEAST_NAMED = 0.2  # share of cues with a name from which on the subtitles are a talk

_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}[ \t]*-->[ \t]*{_TIME}")
_ABOUT = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION|X-TIMESTAMP-MAP)\b")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?[ \t]+([^>]+)>")
_TAG = re.compile(r"</?[a-zA-Z0-9.:][^<>]{0,200}>|\{\\[^}]*\}")
_NAMED = re.compile(r"(?:-[ \t]*)?\[?([^\W\d_a-z][^\n:：\[\]()<>.!?,;\"]{0,30}?)\]?[:：](?:[ \t]+|$)")
_SOUND = re.compile(r"[\s♪♫#*-]*(?:[\[(（][^\])）]*[\])）][\s♪♫]*)*$")


@dataclass(slots=True)
class Cue:
    """What is shown at one time. ``voices``: who says which part; the name is empty where it is not told."""

    line: int
    start: float
    end: float
    voices: list[tuple[str, str]]


def recognise_subtitles(file: InputFile) -> float:
    """Whether the beginning has timings with an arrow."""
    if file.magic or " --> " not in file.sample[:20_000]:
        return 0.0
    timings = [match for line in file.sample[:20_000].splitlines() if (match := _TIMING.match(line))]
    if file.sample.lstrip().startswith("WEBVTT"):
        return 0.98
    return 0.95 if len(timings) > 1 or (timings and file.suffix in (".srt", ".vtt")) else 0.5 if timings else 0.0


def read_subtitles(file: InputFile, data: DataConfig) -> Reading:
    """A talk where the cues have names, else a document."""
    names: Counter[str] = Counter()
    count = 0
    for cue in cues(file):
        count += 1
        names.update({name for name, _ in cue.voices if name})
        if count >= 2_000:
            break
    known = frozenset(name for name, number in names.items() if number > 1 or len(names) < 4)
    if len(known) > 1 and sum(names[name] for name in known) >= LEAST_NAMED * count:
        understood = f"subtitles of {len(known)} speakers"
        talk = Talk(FORMAT, file.name, lambda: turns(file, known), understood, threads_are_whole=True)
        return conversations(talk, data)
    return Reading(FORMAT, "subtitles without speakers, as a document", _documents(file))


def turns(file: InputFile, known: frozenset[str]) -> Iterator[Turn | Entry]:
    """What the speakers say; cues of the same voice go on in one turn."""
    held: Turn | None = None
    left_out: Counter[str] = Counter()
    for cue in cues(file, left_out):
        for name, text in cue.voices:
            if name and name not in known:
                name, text = "", f"{name}: {text}"
            if _SOUND.match(text):
                yield not_a_turn(file.name, cue.line, "sound", text[:80])
            elif held is not None and (not name or name == held.speaker) and len(held.text) < LONGEST:
                held.text += f" {text}"
            elif not name and held is None:
                yield not_a_turn(file.name, cue.line, "before the first speaker", text[:80])
            else:
                speaker = name or (held.speaker if held is not None else "")
                if held is not None:
                    yield held
                held = Turn(speaker, text, cue.line, cue.start)
    if held is not None:
        yield held
    yield from _left_out(file, left_out)


def _left_out(file: InputFile, counts: Counter[str]) -> Iterator[Entry]:
    for rule, count in counts.items():
        if count:
            yield Entry("row", row_id(file.name, 0), "cut", rule, count, (file.name,), file.name)


def cues(file: InputFile, left_out: Counter[str] | None = None) -> Iterator[Cue]:
    """The cues of a file; lines that roll on from one cue to the next are taken once.

    ``left_out`` counts these lines, and those of blocks that are about the file.
    """
    before: list[str] = []
    left_out = Counter() if left_out is None else left_out
    held: list[tuple[int, str]] = []
    about = False
    for number, raw in file.lines():
        line = raw.strip()
        if line:
            if not held:
                about = _ABOUT.match(line) is not None
            left_out["lines about the file"] += about
            held.append((number, line))
            continue
        if held and not about:
            yield from _cues(held, before, left_out)
        held = []
    if held and not about:
        yield from _cues(held, before, left_out)


def _cues(block: list[tuple[int, str]], before: list[str], left_out: Counter[str]) -> Iterator[Cue]:
    """The cues of a block of lines: one, or several where blank lines are missing between them."""
    starts = [place for place, (_, line) in enumerate(block) if "-->" in line and _TIMING.match(line)]
    for number, place in enumerate(starts):
        match = _TIMING.match(block[place][1])
        assert match is not None
        end = starts[number + 1] if number + 1 < len(starts) else len(block)
        if end < len(block) and block[end - 1][1].isdigit():
            end -= 1  # the number of the next cue
        shown = [line for _, line in block[place + 1 : end]]
        fresh = [line for line in shown if _plain(line) and _plain(line) not in before]
        before[:] = [_plain(line) for line in shown]
        left_out["lines shown again"] += sum(map(bool, before)) - len(fresh)
        if fresh:
            start, stop = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
            yield Cue(block[place][0], start, stop, _voices(fresh))


def _voices(lines: list[str]) -> list[tuple[str, str]]:
    """Who says what in a cue. A dash begins another speaker, who has a name or not."""
    voices: list[tuple[str, str]] = []
    for line in lines:
        parts = _VOICE.split(line)
        if len(parts) > 1:
            if _plain(parts[0]):
                voices.append(("", _plain(parts[0])))
            voices += [(_plain(name), _plain(text)) for name, text in zip(parts[1::2], parts[2::2], strict=True)]
            continue
        text = _plain(line)
        named = _NAMED.match(text)
        if named and (text[named.end() :].strip() or len(lines) > 1):
            voices.append((named[1].strip(), text[named.end() :].strip()))
        elif voices:
            name, said = voices[-1]
            voices[-1] = (name, f"{said}\n{text}" if text.startswith(("-", "–", "—")) else f"{said} {text}".strip())
        else:
            voices.append(("", text))
    return [(name, text) for name, text in voices if text]


def _documents(file: InputFile) -> Iterator[Record | Entry]:
    parts: list[str] = []
    size, line, end = 0, 1, 0.0
    left_out: Counter[str] = Counter()
    for cue in cues(file, left_out):
        text = " ".join(f"{name}: {said}" if name else said for name, said in cue.voices)
        if not parts:
            line = cue.line
        parts += [_between(text, cue.start - end)] if parts else []
        parts.append(text)
        size, end = size + len(text), cue.end
        if size > LONGEST:
            yield document("".join(parts), "", file=file.name, format=FORMAT, line=line)
            parts, size = [], 0
    if parts:
        yield document("".join(parts), "", file=file.name, format=FORMAT, line=line)
    yield from _left_out(file, left_out)


def _between(text: str, pause: float) -> str:
    if pause > PARAGRAPH:
        return "\n\n"
    return "\n" if text.startswith(("-", "–", "—")) else " "


def _plain(line: str) -> str:
    """A line without tags and entities.

    >>> _plain("<i>Tom &amp; Ann</i>")
    'Tom & Ann'
    """
    if "<" in line or "{" in line:
        line = _TAG.sub("", line)
    return html.unescape(line).strip() if "&" in line else line.strip()


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, thousandths = parts
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole + int((thousandths or "0").ljust(3, "0")) / 1000
