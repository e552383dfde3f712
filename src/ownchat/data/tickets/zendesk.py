"""Zendesk: tickets with their comments, as its JSON exports and its API give them.

Fields as in Zendesk's developer reference (Tickets, Ticket Comments, Ticket Audits, Users). The first comment is the
ticket's description; a comment that is not public is a note among agents.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ownchat.config import DataConfig
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.mail.subjects import with_subject
from ownchat.data.reading import Reading
from ownchat.data.talk import Talk, Turn, not_a_turn
from ownchat.data.tickets.fields import Cuts, moment, name_of, objects_in, text_field

_PEOPLE = ("requester_id", "submitter_id", "assignee_id", "requester", "submitter", "assignee")
_STAFF = ("agent", "admin")


class _User(NamedTuple):
    name: str
    is_staff: bool | None  # None: not said


def recognise_zendesk(file: InputFile) -> float:
    """Tickets that have people and either comments or audits, or a description."""
    if file.magic or file.sample.lstrip("\ufeff \t\r\n")[:1] not in ("{", "["):
        return 0.0
    outline = file.outline
    path = _path(outline)
    if path is None:
        return 0.0
    rows = outline if not path else outline[path[0]]
    rows = rows if isinstance(rows, list) else [rows]
    first = [_inner(row) for row in rows[:20] if isinstance(row, dict)]
    return 0.96 if any("comments" in row or "audits" in row for row in first) else 0.92


def read_zendesk(file: InputFile, data: DataConfig) -> Reading:
    """Each ticket is a conversation; agents answer. Notes that are not public are dropped with a rule."""
    path = _path(file.outline) or ()
    users = _users(file) if path else {}

    def turns() -> Iterator[Turn | Entry]:
        cuts = Cuts(file.name)
        for item in objects_in(file, *path):
            if isinstance(item, Entry):
                yield item
                continue
            known = users
            if isinstance(around := item.value.get("users"), list) and not path:
                known = users | _user_table(around)
            ticket = _inner(item.value)
            yield from _ticket(ticket, item.value, item.line, file.name, ChainMap(known, _people(ticket)), cuts)
        yield from cuts.entries()

    talk = Talk("zendesk", file.name, turns, understood="Zendesk tickets", threads_are_whole=True)
    return conversations(talk, data)


# ----------------------------------------------------------------------------------------------------------------


def _path(outline: Any) -> tuple[str, ...] | None:
    """Where the tickets stand in the file, None: there are none."""
    if isinstance(outline, dict):
        for key in ("tickets", "results"):
            if isinstance(outline.get(key), list) and any(map(_is_ticket, outline[key][:20])):
                return (key,)
        return () if _is_ticket(outline) else None
    rows = outline[:20] if isinstance(outline, list) else []
    return () if rows and sum(map(_is_ticket, rows)) >= 0.5 * len(rows) else None


def _inner(row: Mapping[str, Any]) -> Mapping[str, Any]:
    ticket = row.get("ticket")
    return ticket if isinstance(ticket, dict) else row


def _is_ticket(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    ticket = _inner(row)
    talks = any(isinstance(row.get(key) or ticket.get(key), list) for key in ("comments", "audits"))
    return any(key in ticket for key in _PEOPLE) and (talks or "description" in ticket) and "id" in ticket


def _users(file: InputFile) -> dict[str, _User]:
    return _user_table(item.value for item in objects_in(file, "users") if not isinstance(item, Entry))


def _user_table(rows: Any) -> dict[str, _User]:
    users = {}
    for row in rows:
        if isinstance(row, Mapping) and "id" in row:
            role = row.get("role")
            users[str(row["id"])] = _User(
                name_of(row, "name", "email"), role in _STAFF if isinstance(role, str) else None
            )
    return users


def _people(ticket: Mapping[str, Any]) -> dict[str, _User]:
    """Those whom a ticket of the JSON export names itself, beside their ids."""
    return _user_table(ticket.get(key) for key in ("requester", "submitter", "assignee")) | _user_table(
        ticket["collaborator"] if isinstance(ticket.get("collaborator"), list) else ()
    )


def _ticket(
    ticket: Mapping[str, Any], around: Mapping[str, Any], line: int, file: str, users: Mapping[str, _User], cuts: Cuts
) -> Iterator[Turn | Entry]:
    thread = name_of(ticket.get("id") or f"line {line}")
    requester = _person(ticket.get("requester_id") or ticket.get("requester") or ticket.get("submitter_id"))
    subject = name_of(ticket.get("subject") or ticket.get("raw_subject") or "")
    deleted = "deleted" if ticket.get("status") == "deleted" else "spam" if ticket.get("status") == "spam" else ""
    comments = _comments(ticket, around)
    description = ticket.get("description")
    opening = next((_text(one) for one in comments), "")
    if isinstance(description, str) and description.strip() and not _same(description, opening):
        first = {"author_id": requester, "body": description, "created_at": ticket.get("created_at")}
        comments = [first, *comments]
    if not comments:
        yield not_a_turn(file, line, deleted or "no comment", f"ticket {thread}")
    for place, comment in enumerate(comments):
        author = _person(comment.get("author_id") or comment.get("author") or (requester if place == 0 else ""))
        text = _text(comment)
        if deleted or comment.get("public") is False:
            yield not_a_turn(file, line, deleted or "private note", f"ticket {thread}")
            continue
        if not text.strip():
            yield not_a_turn(file, line, "no text", f"ticket {thread}")
            continue
        user = users.get(author, _User("", None))
        staff = author != requester if user.is_staff is None else user.is_staff and author != requester
        text = cuts.own(text)
        yield Turn(
            author or "somebody",
            with_subject(subject, text) if place == 0 else text,
            line,
            time=moment(comment.get("created_at")),
            name=user.name or name_of(comment.get("author"), "name", "email"),
            thread=f"ticket {thread}",
            id=name_of(comment.get("id")),
            answer=staff,
        )


def _comments(ticket: Mapping[str, Any], around: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The comments of a ticket, or the comments among the events of its audits."""
    found = ticket.get("comments") if isinstance(ticket.get("comments"), list) else around.get("comments")
    if isinstance(found, list) and found:
        return [one for one in found if isinstance(one, dict)]
    audits = ticket.get("audits") if isinstance(ticket.get("audits"), list) else around.get("audits")
    comments: list[Mapping[str, Any]] = []
    for audit in audits if isinstance(audits, list) else ():
        if isinstance(audit, dict) and isinstance(audit.get("events"), list):
            base = {"author_id": audit.get("author_id"), "created_at": audit.get("created_at")}
            comments += [
                base | event
                for event in audit["events"]
                if isinstance(event, dict) and str(event.get("type")).lower() == "comment"
            ]
    return comments


def _text(comment: Mapping[str, Any]) -> str:
    return text_field(comment, "plain_body", "html_body", "body")


def _same(description: str, opening: str) -> bool:
    """The description is the first comment once more, perhaps in another markup."""
    one, other = ("".join(text.split())[:200] for text in (description, opening))
    return one == other or (len(other) > 20 and one.startswith(other[:100]))


def _person(value: Any) -> str:
    return name_of(value, "id", "email", "name")
