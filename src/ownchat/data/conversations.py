"""Turns of speakers become conversations: cut at threads and pauses, roles given, what one side said in a row joined.

Every source message has one fate in the ledger: kept as a message of a record, merged into one with its neighbours,
or dropped with the reason. Memory is bounded by one conversation, for a channel by those that are open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, row_id
from ownchat.data.records import Record, message, record
from ownchat.data.roles import Roles, find_roles
from ownchat.data.talk import Talk, Turn
from ownchat.data.threads import take_apart

MOST_TURNS = 2_000  # a talk without pauses is cut here, before the next turn that is not the assistant's
_EPOCH = datetime(1970, 1, 1)
_YEAR = 365 * 86_400  # smaller times are clocks without a date: they order turns, but tell no one when


def conversations(talk: Talk, data: DataConfig) -> Reading:
    """Understand a talk: who the assistant is, and where conversations begin and end. The records stream.

    ``Reading.entered["message"]`` counts what ``talk.turns()`` gives. Raises what ``talk.turns()`` raises.
    """
    roles = find_roles(talk, data)
    entered: Counter[str] = Counter()
    rows = _rows(talk, data, roles, entered)
    return Reading(talk.format, talk.understood, rows, notes=roles.notes, entered=entered)


def _rows(talk: Talk, data: DataConfig, roles: Roles, entered: Counter[str]) -> Iterator[Record | Entry]:
    pause = data.pause_hours * 3600
    items = _filled(talk, entered)
    parts = take_apart(items, pause) if talk.crowd else _cut(items, talk, pause, roles)
    for part in parts:
        if isinstance(part, Entry):
            yield part
        else:
            yield from _conversation(part, talk, roles)


def _filled(talk: Talk, entered: Counter[str]) -> Iterator[Turn | Entry]:
    """The talk's items, counted, each with a place of its own; turns that say nothing become entries."""
    count = 0
    numbered = _numbered(talk)
    try:
        for item in numbered:
            if isinstance(item, Entry):
                if item.unit == "message" and item.fate not in ("changed", "cut"):
                    entered["message"] += item.count
                yield item
                continue
            count += 1
            if item.tool_calls or (item.text and not item.text.isspace()):
                yield item
            else:
                yield _dropped([item], talk, "empty")
            if count == 1000:
                entered["message"] += count
                count = 0
    finally:
        entered["message"] += count


def _numbered(talk: Talk) -> Iterator[Turn | Entry]:
    """The talk's items; where several messages stand on one line (all, in many JSON files) their ids are told apart."""
    place, turns = ("", -1), 0
    id, entries = "", 0
    for item in talk.turns():
        if not isinstance(item, Entry):
            here = item.file, item.line
            place, turns = here, turns + 1 if here == place else 0
            item.offset = turns if item.offset is None else item.offset
        elif item.unit == "message" and item.fate not in ("changed", "cut"):
            id, entries = item.id, entries + 1 if item.id == id else 0
            if entries:
                item = replace(item, id=row_id(id, entries))
        yield item


def _cut(items: Iterator[Turn | Entry], talk: Talk, pause: float, roles: Roles) -> Iterator[list[Turn] | Entry]:
    """One list for each conversation: a new thread or a long pause ends one."""
    held: list[Turn] = []
    for item in items:
        if isinstance(item, Entry):
            yield item
            continue
        if held and _ends(held, item, talk, pause, roles):
            yield held
            held = []
        held.append(item)
    if held:
        yield held


def _ends(held: list[Turn], turn: Turn, talk: Talk, pause: float, roles: Roles) -> bool:
    last = held[-1]
    if turn.thread != last.thread:
        return True
    if not talk.threads_are_whole and turn.time is not None and last.time is not None and turn.time - last.time > pause:
        return True
    if len(held) < MOST_TURNS:
        return False
    return len(held) >= 2 * MOST_TURNS or roles.of([turn]) == ["user"]


# ---------------------------------------------------------------------------------------------- one conversation


@dataclass(slots=True)
class _Joined:
    role: str
    turns: list[Turn] = field(default_factory=list)


def _conversation(turns: list[Turn], talk: Talk, roles: Roles) -> Iterator[Record | Entry]:
    """The record of one conversation and the fates of its messages."""
    said = roles.of(turns)
    notices = [turn for turn, role in zip(turns, said, strict=True) if not role]
    if notices:
        yield _dropped(notices, talk, "notice")
        turns = [turn for turn, role in zip(turns, said, strict=True) if role]
        said = [role for role in said if role]
    asked = next((place for place, role in enumerate(said) if role == "user"), None)
    if asked is None or "assistant" not in said[asked:]:
        if turns:
            yield _dropped(turns, talk, "nobody answers" if asked is not None else "nobody asks")
        return
    joined = _join(turns, said)
    voices = {turn.speaker for turn, role in zip(turns, said, strict=True) if role == "user"}
    party = next(iter(voices)) if len(voices) == 1 else turns[asked].speaker if talk.crowd else ""
    answered = next(place for place, one in enumerate(joined) if one.role == "user")
    messages = [
        _message(one, named=len(voices) > 1, opening=one.role == "assistant" and place < answered)
        for place, one in enumerate(joined)
    ]
    first = turns[0]
    row = record(
        "conversation",
        file=first.file or talk.file,
        format=talk.format,
        line=first.line,
        offset=first.offset or None,  # 0: it begins its line
        messages=messages,
        tools=talk.tools,
        group=_group(first, party, talk, roles),
        tags=["crowd"] if talk.crowd else [],
    )
    yield row
    file = row["source"]["file"]
    for place, one in enumerate(joined):
        if len(one.turns) > 1:
            lines = f"{file}, lines {one.turns[0].line} to {one.turns[-1].line}"
            yield Entry(
                "message", f"{row['id']}.{place}", "merged", "said in a row", len(one.turns), (file,), lines, makes=1
            )
    yield Entry("message", row["id"], "kept", "import", len(joined), (file,))


def _join(turns: list[Turn], said: list[str]) -> list[_Joined]:
    """Neighbours of one side become one; what calls a tool, or is its result, stays alone."""
    joined: list[_Joined] = []
    for turn, role in zip(turns, said, strict=True):
        alone = role == "tool" or turn.tool_calls is not None
        last = joined[-1] if joined else None
        if last is None or alone or last.role != role or last.turns[-1].tool_calls is not None:
            joined.append(_Joined(role, [turn]))
        else:
            last.turns.append(turn)
    return joined


def _message(one: _Joined, *, named: bool, opening: bool) -> dict[str, Any]:
    first = one.turns[0]
    speakers = {turn.speaker for turn in one.turns}
    named = named and one.role == "user"
    content = "\n".join(f"{turn.name or turn.speaker}: {turn.text}" if named else turn.text for turn in one.turns)
    generic = bool(first.role) and not first.name  # the speaker is the role's name
    return message(
        one.role,
        content,
        name=(first.name or first.speaker or None) if len(speakers) == 1 and not generic and not named else None,
        tool_calls=first.tool_calls,
        tool_call_id=first.tool_call_id,
        weight=0 if opening else None,
        time=_iso(first.time),
    )


def _group(first: Turn, party: str, talk: Talk, roles: Roles) -> str | None:
    if roles.groups == "party" and party:
        return party
    if not roles.groups or talk.crowd or not first.thread:
        return None
    return f"{talk.file}#{first.thread}" if first.thread.isdigit() else first.thread  # "1" is no name of its own


def _dropped(turns: list[Turn], talk: Talk, rule: str) -> Entry:
    first = turns[0]
    file = first.file or talk.file
    place = f"{file}, line {first.line}"
    return Entry("message", row_id(file, first.line, first.offset or 0), "dropped", rule, len(turns), (file,), place)


def _iso(time: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 text without a zone.

    >>> _iso(1_577_968_440.0)
    '2020-01-02T12:34:00'
    """
    if time is None or not time >= _YEAR:
        return None
    try:
        return (_EPOCH + timedelta(seconds=time)).isoformat(timespec="seconds")
    except OverflowError:
        return None
