"""Transcripts: lines that begin with who speaks (``Anna: text``), as people and speech recognisers write them down.

Names may stand in bold, before or after a time, alone on a line above their words, or be ``Q`` and ``A``. What does
not begin with a name goes on with the turn before. Blank lines, rules and headings ("Conversation 12") part
conversations where the file uses them so. Only names that come again and take turns are believed: prose with a
"Note:" in it stays text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ownchat.config import DataConfig
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading
from ownchat.data.roles import what_a_name_says
from ownchat.data.talk import Talk, Turn, not_a_turn

FORMAT, SCREENPLAY = "transcript", "screenplay"
LOOKED_AT = 2_000  # lines that recognise the format and tell its names
LONGEST = 200_000  # characters of a turn: what goes on without a name is handed on in pieces

_NAME = r"[^\W\d_][^\n:：*<>\[\]{}|=\"“”„!?;,/\\]{0,39}?|\d{1,3}"
_TIME = r"[\[(<]?(?P<{0}>(?:\d{{1,2}}:)?\d{{1,2}}:\d\d)(?:[.,]\d+)?(?:[ ]?[AaPp]\.?[Mm]\.?)?[\])>]?"
_INLINE = re.compile(
    rf"""[ \t>•–-]{{0,4}}(?:{_TIME.format("before")}[ \t]*[-–—|]?[ \t]*)?
    (?P<bold>\*\*|__)?\[?(?P<name>{_NAME})\]?(?:(?P=bold))?[ \t]*
    (?:(?:\([^()\n]{{1,30}}\)|{_TIME.format("after")})[ \t]*)?
    [:：](?:\*\*|__)?(?:[ \t]+(?P<text>.*)|(?P<empty>[ \t]*))$""",
    re.VERBOSE | re.DOTALL,
)
_HEADER = re.compile(  # the name above its words: "Anna Berg  0:03", "[00:00:03] Anna Berg"
    rf"(?:\*\*)?(?:(?P<name>{_NAME})(?:\*\*)?[ \t]+{_TIME.format('time')}"
    rf"|{_TIME.format('first')}[ \t]+(?P<other>{_NAME}))(?:\*\*)?[ \t]*$"
)
_NUMBERED = re.compile(r"([A-Z])\.(\d{1,4})$")  # the calls of Switchboard: A.1, B.2
_RULE = re.compile(r"\s*(?:[-=_*~#]{3,}|(?:[-=_*]\s){3,})\s*$")
_HEADING = re.compile(
    r"\W*(?:conversation|chat|dialog(?:ue)?|session|call|ticket|case|transcript|interview|scene|gespräch|konversation"
    r"|conversación|entretien|gesprek|samtal|диалог)\s*(?:#|no\.?|nr\.?|id)?\s*[:#]?\s*[\w-]*\d[\w-]*\W*$",
    re.IGNORECASE,
)
_NO_SPEAKERS = (
    "note notes hint tip example warning warn error info debug trace critical fatal todo fixme source see http https "
    "ftp file date time from to cc bcc re fwd subject sent reply-to title author url link tags category name email "
    "address phone tel fax price version license usage summary description hinweis achtung anmerkung datum von an "
    "betreff nota fecha asunto de para remarque objet"
)
_KEYS = frozenset(_NO_SPEAKERS.split())
_SMALL = frozenset(
    ["de", "da", "di", "du", "del", "van", "von", "der", "den", "ter", "la", "le", "al", "el", "bin", "of"]
)
_DATED = re.compile(r"\s*[\[(]?(?:\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./-]\d{1,2}[./-]\d{1,2})[,T ]")


@dataclass(frozen=True)
class Style:
    """What a look at the beginning tells about a transcript."""

    names: frozenset[str]
    headers: bool  # names stand above their words, beside a time
    blank_parts: int  # so many blank lines in a row part conversations; 0: blank lines part nothing
    whole_lines: bool  # every line begins with a name
    screenplay: bool  # names stand above their words, before a colon


def recognise_transcript(file: InputFile) -> float:
    """Whether lines begin with a few names that come again and take turns."""
    return 0.0 if (style := _style(file)) is None or style[0].screenplay else style[1]


def recognise_screenplay(file: InputFile) -> float:
    """A play is text unless the user says otherwise: nobody in it is an assistant."""
    return 0.05 if (style := _style(file)) is not None and style[0].screenplay else 0.0


def read_transcript(file: InputFile, data: DataConfig) -> Reading:
    """The conversations of a transcript. Raises :class:`~ownchat.data.files.UnreadableFile` where nobody speaks."""
    found = _style(file, believe=True)
    if found is None:
        raise UnreadableFile(
            "no line begins with a name and a colon", where=file.name, fix="write it as lines like  Anna: text"
        )
    style = found[0]
    listed = ", ".join(sorted(style.names)[:6]) + (", ..." if len(style.names) > 6 else "")
    format = SCREENPLAY if style.screenplay else FORMAT
    talk = Talk(format, file.name, lambda: turns(file, style), f"speakers: {listed}", threads_are_whole=True)
    return conversations(talk, data)


def turns(file: InputFile, style: Style) -> Iterator[Turn | Entry]:
    """The turns of a transcript in order; headings and what stands before the first speaker are entries."""
    held: Turn | None = None
    parts: list[str] = []
    size, part, blanks, last_number = 0, 1, 0, 0
    questions = _QA.keys() <= style.names  # else A is a speaker as B is

    def finished() -> Iterator[Turn]:
        nonlocal held
        if held is not None:
            held.text = "\n".join(parts).strip()
            yield held
        held = None
        parts.clear()

    for number, raw in file.lines():
        line = raw.rstrip()
        if not line:
            blanks += 1
            if held is not None and parts:
                parts.append("")
            continue
        begun = _begin(line, style, after_blank=blanks > 0 or held is None)
        if begun is None and (_RULE.match(line) or _HEADING.match(line)):
            yield from finished()
            part, last_number, blanks = part + 1, 0, 0
            yield not_a_turn(file.name, number, "heading", line[:80])
            continue
        if begun is not None:
            name, text, time = begun
            yield from finished()
            if numbered := _NUMBERED.match(name):
                name, count = numbered[1], int(numbered[2])
                part, last_number = part + (count < last_number), count
            elif style.blank_parts and blanks >= style.blank_parts:
                part += 1
            held = Turn(name, "", number, time, thread=str(part), role=_QA.get(name, "") if questions else "")
            parts.append(text)
            size = len(text)
        elif held is None:
            yield not_a_turn(file.name, number, "before the first speaker", line[:80])
        else:
            if size > LONGEST:
                speaker, time, thread, role = held.speaker, held.time, held.thread, held.role
                yield from finished()
                held, size = Turn(speaker, "", number, time, thread=thread, role=role), 0
            parts.append(line)
            size += len(line)
        blanks = 0
    yield from finished()


_QA = {"Q": "user", "A": "assistant"}


def _begin(line: str, style: Style, *, after_blank: bool) -> tuple[str, str, float | None] | None:
    """Name, first words and time of a line that begins a turn."""
    if style.headers:
        match = _HEADER.match(line)
        if match is None or not (style.whole_lines or after_blank or _header_name(match) in style.names):
            return None
        return _header_name(match), "", _seconds(match["time"] or match["first"])
    match = _INLINE.match(line)
    if match is None:
        return None
    name, known = match["name"].strip(), _inline_name(match) in style.names
    if not known and (not (style.whole_lines or after_blank) or not _may_speak(name)):
        return None
    return name, match["text"] or "", _seconds(match["before"] or match["after"])


# ------------------------------------------------------------------------------------------------------ the style


def _style(file: InputFile, *, believe: bool = False) -> tuple[Style, float] | None:
    """How a file names its speakers, and how sure that is; ``believe``: the user says that it is a transcript."""
    if file.magic or not file.sample:
        return None
    lines = file.sample.split("\n", LOOKED_AT)[:LOOKED_AT]
    if not file.whole and len(lines) > 1:
        lines.pop()  # cut off
    lines = [line.rstrip() for line in lines]
    filled = [line for line in lines if line]
    if not filled or (not believe and (filled[0][0] in "{<" or sum(map(bool, map(_DATED.match, filled[:50]))) > 5)):
        return None
    inline = [match if match and not _DATED.match(line) else None for line in lines for match in [_INLINE.match(line)]]
    header = [_HEADER.match(line) for line in lines]
    headers = sum(map(bool, header)) > 1.5 * sum(map(bool, inline))
    names = [_header_name(match) if match else "" for match in header] if headers else [_inline_name(m) for m in inline]
    counts = Counter(name for name in names if name)
    believed = {name for name, count in counts.items() if _may_speak(name) and (count > 1 or what_a_name_says(name))}
    if not believed and believe:
        believed = set(counts)
    spoken = [name for name in names if name in believed]
    if not spoken:
        return None
    above = [match["text"] is None for match, name in zip(inline, names, strict=True) if match and name in believed]
    screenplay = not headers and sum(above) > 0.8 * len(above) and not _sides(Counter(spoken))
    coverage = len(spoken) / len(filled)
    whole = coverage > 0.97
    style = Style(frozenset(believed), headers, _blank_parts(lines, names, believed), whole, screenplay)
    return style, _confidence(spoken, counts, coverage, inline, style)


def _confidence(
    spoken: list[str], counts: Counter[str], coverage: float, inline: Sequence[re.Match[str] | None], style: Style
) -> float:
    voices = Counter(spoken)
    unbelieved = sum(counts.values()) - len(spoken)
    if len(voices) < 2 or len(spoken) < 4 or unbelieved > (1 if _sides(voices) else 0.25) * len(spoken):
        short = len(spoken) in (2, 3) and len(voices) == 2 and coverage > 0.6 and _sides(voices)
        return 0.7 if short else 0.0
    alternating = sum(one != other for one, other in pairwise(spoken)) / (len(spoken) - 1)
    if alternating < 0.5 or len(voices) > max(4, len(spoken) / 2):
        return 0.0
    if len(voices) > 2 and _is_a_form(spoken):
        return 0.0
    if _sides(voices):
        return 0.9 if coverage > 0.3 else 0.6
    if style.headers or style.screenplay:
        return 0.6
    texts = [match["text"] or "" for match in inline if match and _inline_name(match) in voices]
    if sum(_is_said(text) for text in texts) < 0.4 * len(texts) or len(spoken) < 6:
        return 0.0
    lower = sum(count for name, count in voices.items() if name[0].islower()) / len(spoken)
    sure = 0.8 if coverage > 0.6 else 0.5 if coverage > 0.25 else 0.0
    if lower > 0.5:  # keys of a configuration, names in code
        return 0.5 if coverage > 0.6 else 0.0
    return sure


def _is_said(text: str) -> bool:
    """Whether words after a name are speech, not the value of a setting."""
    return len(text.split()) > 2 or text.rstrip(" \"'*_)").endswith((".", "?", "!", "。", "？", "！", "…"))


def _sides(voices: Counter[str]) -> bool:
    """Whether most names tell a side, and both are there: customer and agent, Q and A."""
    said: Counter[str] = Counter()
    for name, count in voices.items():
        said[_QA.get(name) or {"asking": "user", "answering": "assistant"}.get(what_a_name_says(name), "")] += count
    return (
        bool(said["user"] and (said["assistant"] or said[""]))
        and said["user"] + said["assistant"] >= 0.4 * said.total()
    )


def _is_a_form(spoken: list[str]) -> bool:
    """Whether the names come again and again in one order: fields of a form, not people."""
    follows: dict[str, Counter[str]] = {}
    for one, other in pairwise(spoken):
        follows.setdefault(one, Counter())[other] += 1
    usual = sum(counter.most_common(1)[0][1] for counter in follows.values())
    return usual > 0.9 * (len(spoken) - 1) and len(spoken) >= 6


def _blank_parts(lines: list[str], names: list[str], believed: set[str]) -> int:
    """How many blank lines in a row part conversations: blocks of several turns are conversations."""
    for parting in (2, 1):
        blocks: list[list[str]] = [[]]
        blanks = 0
        for line, name in zip(lines, names, strict=True):
            if not line:
                blanks += 1
                continue
            if blanks >= parting and blocks[-1]:
                blocks.append([])
            blanks = 0
            blocks[-1].append(name if name in believed else "")
        if len(blocks) < 2:
            continue
        spoken = [sum(map(bool, block)) for block in blocks]
        begun = sum(bool(block[0]) for block in blocks)
        if begun >= 0.9 * len(blocks) and sum(count >= 2 for count in spoken) >= 0.8 * len(blocks):
            return parting
    return 0


def _inline_name(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    name = match["name"].strip()
    return numbered[1] if (numbered := _NUMBERED.match(name)) else name


def _header_name(match: re.Match[str]) -> str:
    return (match["name"] or match["other"]).strip()


def _may_speak(name: str) -> bool:
    """Whether a name can be a speaker's.

    >>> _may_speak("Anna Berg"), _may_speak("Note"), _may_speak("and then he said to all of us")
    (True, False, False)
    """
    words = name.split()
    if name.casefold() in _KEYS or len(words) > 4:
        return False
    return (
        len(words) == 1
        or not any(word[0].islower() and word not in _SMALL for word in words)
        or bool(what_a_name_says(name))
    )


def _seconds(clock: str | None) -> float | None:
    if clock is None:
        return None
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return float(seconds)
