"""Many mails on disk and a small index of them in memory: two gigabytes of mail need a few hundred megabytes.

What a mail says goes as a JSON line into a temporary file; what threads are made from stays here, as arrays.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import IO, Any

import orjson

from ownchat.data.mail.body import Body, clean
from ownchat.data.mail.mailbox import RawMail
from ownchat.data.mail.message import Mail, parse
from ownchat.data.mail.subjects import bare_subject

NO_TIME = float("inf")


@dataclass(slots=True)
class Letter:
    """A cleaned mail, as it comes back from the disk."""

    file: int
    line: int
    id: str
    subject: str
    time: float | None
    sender: str
    name: str
    to: list[str]
    text: str
    quoted: str
    quoted_name: str
    quoted_address: str
    attachments: list[str]
    refused: str  # the rule by which it is no message; "duplicate": another copy is
    detail: str = ""
    answered: str = ""


@dataclass
class Spool:
    """The mails of an import in the order in which they were read."""

    cuts: Counter[str] = field(default_factory=Counter)  # mails in which something was cut, by rule
    characters: Counter[str] = field(default_factory=Counter)  # how much
    refused: Counter[str] = field(default_factory=Counter)
    senders: Counter[int] = field(default_factory=Counter)  # address number -> mails
    meets: Counter[int] = field(default_factory=Counter)  # address number -> mails it sent or got
    from_lists: int = 0

    def __post_init__(self) -> None:
        self._disk: IO[bytes] = tempfile.TemporaryFile(prefix="ownchat-mail-")  # noqa: SIM115 - lives as long as this
        self._size = 0
        self._numbers: dict[str, int] = {}
        self.addresses: list[str] = []
        self._nodes: dict[bytes, int] = {}
        self.node_mail = array("q")  # node (a Message-ID) -> mail, -1: it is not here
        self.node_parent = array("q")  # -> the node it answers, -1: none is known
        self.offset = array("q")
        self.time = array("d")
        self.node = array("q")
        self.sender = array("q")
        self.subject = array("q")  # hash of the subject without its "Re:"
        self.is_reply = array("b")
        self.is_list = array("b")
        self.taken = array("b")  # 0: refused, or a copy
        self.people = array("q")  # all senders and recipients, from people_start[mail] on
        self.people_start = array("q", [0])

    def __len__(self) -> int:
        return len(self.offset)

    def add(self, raw: RawMail, file: int, file_name: str) -> None:
        """Understand one mail and put it away."""
        mail = parse(raw.content, unquote_from=raw.in_mbox)
        body = Body("")
        rule = raw.refused or mail.refused
        if not rule:
            body = clean(mail.text)
            rule = "encrypted" if body.encrypted else "" if body.text else "nothing of its own"
        node = self._place(mail, raw, file_name)
        if node < 0 and not rule:
            rule = "duplicate"
        self.refused[rule] += 1
        if not rule:
            self._count(body, mail)
        values = (
            file, raw.line, mail.id, mail.subject, mail.time, mail.sender, mail.name, mail.recipients[:20], body.text,
            body.quoted, body.quoted_name, body.quoted_address, mail.attachments, rule,
            "its middle was not read: it is larger than 64 MB" if raw.cut else "", body.answered,
        )  # fmt: skip
        if not rule:
            self.node_mail[node] = len(self)
        self._append(values, mail, node, rule)

    def letter(self, mail: int) -> Letter:
        """Read a mail back."""
        self._disk.seek(self.offset[mail])
        values: list[Any] = orjson.loads(self._disk.readline())
        return Letter(*values)

    def number(self, address: str) -> int:
        """The number of an address, -1: nobody has it."""
        return self._numbers.get(address, -1)

    def people_of(self, mail: int) -> set[int]:
        """Everybody who sent or got a mail."""
        return set(self.people[self.people_start[mail] : self.people_start[mail + 1]])

    # ------------------------------------------------------------------------------------------------------------

    def _place(self, mail: Mail, raw: RawMail, file_name: str) -> int:
        """The node of a mail in the forest of Message-IDs, linked to those it names; -1: a copy is there already."""
        parents = [self._node(id) for id in mail.parents if id != mail.id]
        for older, newer in pairwise(parents):
            self._link(newer, older)
        own = self._node(mail.id) if mail.id else -1
        if own >= 0 and (other := self.node_mail[own]) >= 0:
            if self._same(other, mail):
                return -1
            own = -1  # a program that gives the same id to all
        if own < 0:
            own = self._node(f"{file_name}\0{raw.line}")
        if parents:
            self.node_parent[own] = -1  # what others said about it counts less
            self._link(own, parents[-1])
        return own

    def _same(self, other: int, mail: Mail) -> bool:
        time = mail.time if mail.time is not None else NO_TIME
        close = time == self.time[other] or abs(time - self.time[other]) < 86_400
        return self.sender[other] == self._number(mail.sender) and close

    def _link(self, child: int, parent: int) -> None:
        """``child`` answers ``parent``, unless that would make a circle."""
        if self.node_parent[child] >= 0 or child == parent:
            return
        above, steps = parent, 0
        while above >= 0 and steps < 1000:
            if above == child:
                return
            above, steps = self.node_parent[above], steps + 1
        if steps < 1000:
            self.node_parent[child] = parent

    def _node(self, id: str) -> int:
        key = blake2b(id.encode("utf-8", "replace"), digest_size=10).digest()
        if (node := self._nodes.get(key)) is None:
            node = self._nodes[key] = len(self.node_mail)
            self.node_mail.append(-1)
            self.node_parent.append(-1)
        return node

    def _number(self, address: str) -> int:
        if (number := self._numbers.get(address)) is None:
            number = self._numbers[address] = len(self.addresses)
            self.addresses.append(address)
        return number

    def _count(self, body: Body, mail: Mail) -> None:
        for rule, characters in body.cuts.items():
            self.cuts[rule] += 1
            self.characters[rule] += characters
        if mail.attachments:
            self.cuts["attachments listed"] += 1
            self.characters["attachments listed"] += len(mail.attachments)

    def _append(self, values: tuple[Any, ...], mail: Mail, node: int, rule: str) -> None:
        sender = self._number(mail.sender)
        people = {sender, *(self._number(address) for address in mail.recipients)}
        if mail.delivered:
            people.add(self._number(mail.delivered))
        if not rule:
            self.senders[sender] += 1
            self.meets.update(people)
            self.from_lists += bool(mail.mailing_list)
        key, is_reply = bare_subject(mail.subject)
        self.offset.append(self._size)
        self._size += self._disk.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))
        self.time.append(NO_TIME if mail.time is None else mail.time)
        self.node.append(node)
        self.sender.append(sender)
        self.subject.append(int.from_bytes(blake2b(key.encode("utf-8", "replace"), digest_size=7).digest(), "big"))
        self.is_reply.append(is_reply)
        self.is_list.append(bool(mail.mailing_list))
        self.taken.append(not rule)
        self.people.extend(people)
        self.people_start.append(len(self.people))
