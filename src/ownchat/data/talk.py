"""Talk: turns of named speakers, as chat programs, mail and transcripts hold them, and what becomes of them.

A reader hands over :class:`Turn` after :class:`Turn`; :func:`ownchat.data.conversations.conversations` finds out who
the assistant is, takes threads apart, ends conversations at long pauses, and joins what one voice said in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ownchat.data.ledger import Entry


@dataclass(slots=True)
class Turn:
    """One message of one speaker.

    ``speaker`` identifies, ``name`` is for people (empty: the speaker itself is a name). ``time`` is in seconds since
    1970, of the export's own clock where no zone is given. ``thread`` names the channel, chat or ticket: the turns of
    one thread come one after another, in order of time. ``id`` and ``reply_to`` are the format's own. ``role`` is set
    only where the format says who the assistant is (``user``, ``assistant``, ``system``, ``tool``). ``answer``: the
    format says that this speaker is staff, an agent or a bot (a hint for roles, weaker than ``role``). ``within``: the
    ``id`` of the message whose thread of replies this turn stands in, where the format keeps threads of its own: only
    such turns belong together, whatever stands between them. ``offset`` tells the messages of one line apart; where a
    reader leaves it out they are counted.
    """

    speaker: str
    text: str
    line: int
    time: float | None = None
    name: str = ""
    thread: str = ""
    id: str = ""
    reply_to: str = ""
    role: str = ""
    answer: bool = False
    file: str = ""  # empty: the talk's file
    within: str = ""
    offset: int | None = None
    tool_calls: str | None = None  # JSON text
    tool_call_id: str | None = None


@dataclass(frozen=True)
class Talk:
    """An export that was understood. ``turns`` starts the reading and may be called several times.

    Each source message gives exactly one item: a turn, or an entry of unit "message" that says why it is none (a
    media line, a deleted message; see :func:`not_a_turn`). Entries of other units may stand between them (a stretch
    that is unreadable).
    """

    format: str
    file: str
    turns: Callable[[], Iterator[Turn | Entry]]
    understood: str = ""  # for people: "date order day.month.year, 24 hours"
    owner: str = ""  # the speaker whose account it is, where the format tells
    owner_why: str = ""  # 'the name of the file: the chat with "Anna"'
    crowd: bool = False  # many people talk at once (a channel): threads are taken apart
    tools: str | None = None  # JSON text: tools that the assistant can call
    threads_are_whole: bool = False  # a thread is one conversation however long its pauses (tickets, mail, ChatGPT)


def not_a_turn(file: str, line: int, rule: str, detail: str = "", offset: int | None = None) -> Entry:
    """The fate of a source message that is not taken, with its place; ``offset`` as that of a turn.

    >>> not_a_turn("chat.txt", 7, "media").detail
    'chat.txt, line 7'
    """
    from ownchat.data.reading import row_id

    place = f"{file}, line {line}" + (f": {detail}" if detail else "")
    return Entry("message", row_id(file, line, offset), "dropped", rule, parents=(file,), detail=place)
