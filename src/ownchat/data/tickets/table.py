"""Tables with a message a row: a conversation's or ticket's number, who speaks, the text, perhaps the time.

Help desks' CSV exports, chat logs, and sets such as the Twitter customer support one, whose rows name the message they
answer instead of a conversation. Rows of a conversation need not stand together.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, Any

import orjson

from ownchat.config import DataConfig
from ownchat.data.columns import is_named
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.mail.subjects import with_subject
from ownchat.data.markup import without_markup
from ownchat.data.reading import Reading, unreadable
from ownchat.data.tables import sniff
from ownchat.data.talk import Talk, Turn, not_a_turn
from ownchat.data.tickets.clock import Clock, in_order
from ownchat.data.tickets.fields import Cuts, objects_in

LOOK_ROWS = 300

_NAMES = {
    "thread": "conversation_id conversation ticket_id ticket_number ticket_no case_id case_number thread_id thread "
    "chat_id session_id dialogue_id dialog_id dialogueid convo_id conv_id chatid sessionid ticket case chat session "
    "room_id issue_id vorgang vorgangsnummer ticketnummer conversation_uuid",
    "author": "author_id author speaker sender sender_id from user_name username user_id author_name sender_name "
    "participant agent_or_customer from_name nick speaker_id posted_by created_by absender autor name von",
    "role": "role author_type sender_type speaker_type participant_type user_type from_type actor_type side "
    "author_role sender_role inbound is_agent is_customer direction type",
    "text": "text message body content utterance msg comment message_text message_body text_body comment_body "
    "plain_body transcript nachricht mensaje contenu message_content utterance_text part_body",
    "time": "created_at timestamp time date datetime sent_at created date_time message_time created_time created_date "
    "turn turn_number turn_id turnnumber message_number seq sequence order index position zeit datum zeitpunkt uhrzeit "
    "fecha hora heure data ora godzina tid дата время 日時 時間",
    "day": "date datum fecha data dato день 日付 日期",
    "id": "tweet_id message_id id comment_id msg_id utterance_id turn_id part_id",
    "reply_to": "in_response_to_tweet_id in_reply_to_status_id in_reply_to reply_to reply_to_id parent_id "
    "parent_message_id response_to in_reply_to_id",
    "subject": "subject title betreff asunto objet ticket_subject",
    "public": "public is_public",
}
_STAFF = re.compile(
    r"(?:agent|admin|assistant|bot|support|staff|operator|employee|representative|rep|advisor|team(?:mate|_member)?|outbound"
    r"|out|company|brand|service|system_bot|mitarbeiter|berater)$"
)
_CUSTOMER = re.compile(
    r"(?:customer|user|end[-_ ]?user|client|visitor|lead|contact|guest|inbound|in|requester|kunde|human|caller)$"
)
_CLOCK = re.compile(r"\d{1,2}[:.h]\d\d(?:[:.]\d\d)?(?:\s*[AaPp]\.?\s?[Mm]\.?)?")
_TRUE, _FALSE = ("true", "1", "yes", "t"), ("false", "0", "no", "f")


@dataclass(frozen=True)
class _Columns:
    thread: str = ""
    author: str = ""
    role: str = ""
    text: str = ""
    time: str = ""
    id: str = ""
    reply_to: str = ""
    subject: str = ""
    public: str = ""
    day: str = ""  # where the time of day has a column of its own

    def understood(self) -> str:
        named = {part: getattr(self, part) for part in self.__dataclass_fields__}
        return "a message a row: " + ", ".join(f'{part} = "{name}"' for part, name in named.items() if name)


def recognise_message_table(file: InputFile) -> float:
    """A CSV or JSON table in which conversations' numbers recur (or rows name the message they answer) beside texts."""
    if file.magic or not file.sample.strip():
        return 0.0
    found = _look(file)
    return 0.0 if found is None else 0.93 if found.author or found.role else 0.8


def read_message_table(file: InputFile, data: DataConfig) -> Reading:
    """Conversations from rows. Raises :class:`~ownchat.data.files.UnreadableFile` where no column tells who speaks."""
    columns = _look(file)
    if columns is None:
        what = "no columns for conversation, speaker and text"
        raise UnreadableFile(what, where=file.name, fix="name them conversation_id, author and text")
    if not (columns.author or columns.role):
        raise UnreadableFile(
            f'the rows are messages (conversation = "{columns.thread}", text = "{columns.text}"), but no column tells '
            "who speaks: it is one side of the talk only, or the other side cannot be told",
            where=file.name,
            fix="add a column author or role, or give the file with both sides",
        )
    clock = Clock(data.date_order)
    held = _Held(file, columns, clock)
    understood = "; ".join(filter(None, (columns.understood(), clock.understood)))
    talk = Talk("message table", file.name, held.turns, understood=understood, threads_are_whole=True)
    reading = conversations(talk, data)
    return replace(reading, notes=[*reading.notes, *clock.notes])


# ----------------------------------------------------------------------------------------------------------- columns


def _look(file: InputFile) -> _Columns | None:
    """The columns of a table of messages; None: it is something else."""
    if file.sample.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        outline = file.outline
        rows = [row for row in outline[:LOOK_ROWS] if isinstance(row, dict)] if isinstance(outline, list) else []
        names = list(dict.fromkeys(key for row in rows for key in row))
        sample = [{key: _cell(row.get(key)) for key in names} for row in rows]
        return _columns(names, sample)
    if "," not in file.sample[:4000] and "\t" not in file.sample[:4000] and ";" not in file.sample[:4000]:
        return None
    lines = io.StringIO(file.sample, newline="").readlines()
    try:
        cells = list(islice(sniff(file).reader(iter(lines if file.whole else lines[:-1])), LOOK_ROWS))
    except csv.Error:
        return None
    cells = [row for row in cells if any(cell.strip() for cell in row)]
    if len(cells) < 3 or len(cells[0]) < 2:
        return None
    return _columns(cells[0], [dict(zip(cells[0], row, strict=False)) for row in cells[1:]])


def _columns(names: Sequence[str], sample: Sequence[Mapping[str, str]]) -> _Columns | None:
    if len(sample) < 2 or is_named(names):
        return None  # is_named: a question and an answer in each row
    plain = {_plain(name): name for name in reversed(names)}
    found: dict[str, str] = {}
    for part, wanted in _NAMES.items():
        taken = set(found.values())
        found[part] = next((plain[name] for name in wanted.split() if name in plain and plain[name] not in taken), "")
    clocks = [row.get(found["time"], "").strip() for row in sample] if found["time"] else []
    if not any(_CLOCK.fullmatch(cell) for cell in clocks):
        found["day"] = ""
    columns = _Columns(**found)
    if not columns.text or not _are_texts(columns.text, sample):
        return None
    if columns.role and not _tells_sides([row.get(columns.role, "") for row in sample], columns.role):
        columns = _Columns(**(found | {"role": ""}))
    threads = [row.get(columns.thread, "") for row in sample]
    recurs = columns.thread and len(set(threads)) <= 0.75 * len(threads)
    answers = columns.id and columns.reply_to and any(row.get(columns.reply_to, "").strip() for row in sample)
    if not recurs and answers:
        columns = _Columns(**({part: getattr(columns, part) for part in found} | {"thread": ""}))
    return columns if recurs or answers else None


def _are_texts(name: str, sample: Sequence[Mapping[str, str]]) -> bool:
    cells = [row[name] for row in sample if row.get(name, "").strip()]
    return bool(cells) and sum(len(cell.split()) for cell in cells) >= 1.5 * len(cells)


def _tells_sides(values: Sequence[str], name: str) -> bool:
    filled = [value.strip().lower() for value in values if value.strip()]
    if _plain(name) in ("inbound", "is_agent", "is_customer"):
        return all(value in _TRUE + _FALSE for value in filled)
    known = sum(bool(_STAFF.match(value) or _CUSTOMER.match(value)) for value in filled)
    return bool(filled) and known >= 0.6 * len(filled)


def _plain(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip().lstrip("\ufeff"))
    return re.sub(r"\W+", "_", spaced.lower()).strip("_")


# -------------------------------------------------------------------------------------------------------------- rows


class _Held:
    """The rows of a table on disk, and in memory which conversation each belongs to, and when it was said."""

    def __init__(self, file: InputFile, columns: _Columns, clock: Clock) -> None:
        self._file, self._columns, self._clock = file, columns, clock
        self._disk: IO[bytes] = tempfile.TemporaryFile(prefix="ownchat-table-")  # noqa: SIM115 - lives as long as this
        self._offset, self._thread = array("q"), array("q")
        self._threads: dict[str, int] = {}
        self._above = array("q")  # union-find over conversations, where rows name the row they answer
        self._problems: list[Entry] = []
        self._size = 0
        for line, values in _rows(file, columns, self._problems):
            self._add(line, values)
        self._threads = {}
        roots = array("q", (self._root(thread) for thread in self._thread))
        self._time = clock.seconds(roots)
        self._order = in_order(len(roots), self._time, roots)

    def turns(self) -> Iterator[Turn | Entry]:
        yield from self._problems
        cuts = Cuts(self._file.name)
        before = -1
        for row in self._order:
            self._disk.seek(self._offset[row])
            line, values = orjson.loads(self._disk.readline())
            thread = self._root(self._thread[row])
            yield self._turn(row, line, values, f"{thread}", cuts, opens=thread != before)
            before = thread
        yield from cuts.entries()

    def _turn(self, row: int, line: int, values: list[str], thread: str, cuts: Cuts, *, opens: bool) -> Turn | Entry:
        text, author, role, id, subject, public = values
        if public.strip().lower() in _FALSE:
            return not_a_turn(self._file.name, line, "private note")
        text = without_markup(text)
        if not text.strip():
            return not_a_turn(self._file.name, line, "no text")
        text = cuts.own(text)
        time = self._time[row]
        return Turn(
            author.strip() or role.strip() or "somebody",
            with_subject(subject.strip(), text) if opens else text,
            line,
            time=time if time == time else None,  # NaN is unequal to itself
            thread=f"conversation {thread}",
            id=id,
            answer=self._answers(role),
        )

    def _answers(self, role: str) -> bool:
        value, name = role.strip().lower(), _plain(self._columns.role)
        if name == "is_agent":
            return value in _TRUE
        if name in ("inbound", "is_customer"):
            return value in _FALSE
        return bool(value) and _STAFF.match(value) is not None

    def _add(self, line: int, row: Mapping[str, str]) -> None:
        c = self._columns
        parts = (c.text, c.author, c.role, c.id, c.subject, c.public)
        self._offset.append(self._size)
        stored = (line, [row.get(part, "") if part else "" for part in parts])
        self._size += self._disk.write(orjson.dumps(stored, option=orjson.OPT_APPEND_NEWLINE))
        self._clock.add(" ".join(row.get(part, "") for part in (c.day, c.time) if part))
        if c.thread:
            self._thread.append(self._number(row.get(c.thread, "").strip() or f"\0{line}"))
            return
        own = self._number(row.get(c.id, "").strip() or f"\0{line}")
        if above := row.get(c.reply_to, "").strip().removesuffix(".0"):  # a number column with gaps
            one, other = self._root(own), self._root(self._number(above))
            self._above[max(one, other)] = min(one, other)
        self._thread.append(own)

    def _number(self, thread: str) -> int:
        if (number := self._threads.get(thread)) is None:
            number = self._threads[thread] = len(self._above)
            self._above.append(number)
        return number

    def _root(self, thread: int) -> int:
        while (above := self._above[thread]) != thread:
            self._above[thread] = self._above[above]
            thread = above
        return thread


def _rows(file: InputFile, columns: _Columns, problems: list[Entry]) -> Iterable[tuple[int, dict[str, str]]]:
    if file.sample.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        for item in objects_in(file):
            if isinstance(item, Entry):
                problems.append(item)
            else:
                yield item.line, {key: _cell(value) for key, value in item.value.items()}
        return
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for number, line in file.lines(""):
            taken = number
            yield line

    reader = sniff(file).reader(lines())
    names: list[str] = []
    start = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.append(unreadable(file.name, start, "a damaged row", str(error)))
            return
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            if not names:
                names = cells
            else:
                yield start, dict(zip(names, cells, strict=False))
        start = taken + 1


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):  # {"author": {"name": ...}}
        return next((str(value[key]) for key in ("id", "email", "name", "type") if value.get(key)), "")
    return str(value) if isinstance(value, str | int | float) else ""
