"""All mail of an import as talks: who wrote to whom, who answers, and what became of every single mail."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ownchat.config import DataConfig
from ownchat.data.conversations import conversations
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.mail.body import clean_quote
from ownchat.data.mail.mailbox import raw_mails
from ownchat.data.mail.spool import Letter, Spool
from ownchat.data.mail.subjects import with_subject
from ownchat.data.mail.threads import Chain, Forest
from ownchat.data.reading import Reading, row_id, unreadable
from ownchat.data.records import Record
from ownchat.data.talk import Talk, Turn, not_a_turn

FEWEST_GROUPS = 10  # fewer customers or threads than this are too few to be dealt out to three splits as wholes
_OTHER = {"user": "assistant", "assistant": "user"}

_SERVICE = re.compile(
    r"^(?:(?:customer|client|tech|it|user)?[._-]?(?:support|service|care|help|helpdesk|servicedesk)|info|contact|kontakt|hello|hallo"
    r"|hilfe|kundenservice|kundendienst|kundenbetreuung|office|sales|vertrieb|orders?|bestellung|billing|buchhaltung|team"
    r"|service-?client|serviceclients|contacto|atencion|atencionalcliente|soporte|ayuda|ventas|assistenza|suporte|atendimento"
    r"|klantenservice|kundtjanst|kundeservice|asiakaspalvelu|pomoc|biuro|enquiries|questions?|desk|reception)(?:[+.].*)?$"
)  # fmt: skip
_NO_ANSWER = re.compile(r"^(?:no-?_?reply|do-?not-?reply|noreply|newsletter|news|notifications?|mailer|bounces?)\b")
_FREE = re.compile(
    r"(?:^|\.)(?:gmail|googlemail|yahoo|ymail|hotmail|outlook|live|msn|aol|gmx|web|t-online|freenet|icloud|me|mac|proton|protonmail"
    r"|pm|fastmail|orange|free|laposte|wanadoo|libero|virgilio|uol|bol|terra|mail|yandex|qq|163|126|naver|hanmail|posteo"
    r"|mailbox|comcast|verizon|att|btinternet|ziggo|kpnmail|telia|seznam|wp|onet|o2)\.[a-z.]{2,6}$"
)


def read_mail(files: Sequence[InputFile], data: DataConfig) -> Reading:
    """Mailboxes and single mails, threaded together.

    Raises :class:`~ownchat.data.files.UnreadableFile` if there is no mail in the files.
    """
    spool, problems = Spool(), []
    for number, file in enumerate(files):
        try:
            for raw in raw_mails(file):
                spool.add(raw, number, file.name)
        except (OSError, EOFError, ValueError) as error:  # damaged after its beginning
            problems.append(unreadable(file.name, 1, "damaged file", str(error)))
    if not len(spool):
        raise UnreadableFile(
            "there is no mail in it", where=files[0].name, fix="export the mailbox as mbox or eml files"
        )
    voices = _voices(spool, data)
    letters = _Letters(files, spool, Forest(spool), voices, problems)
    name = files[0].name if len(files) == 1 else f"{len(files)} files of mail"
    talk = Talk(
        "mail",
        name,
        letters.turns,
        understood=f"{_number(len(spool), 'mail')} of {_number(len(spool.senders), 'sender')}",
        owner=voices.owner,
        owner_why=voices.why,
        threads_are_whole=True,
    )
    reading = conversations(talk, data)
    return replace(reading, rows=letters.grouped(reading.rows), notes=[*reading.notes, *_notes(spool, voices.by_turns)])


def read_one(file: InputFile, data: DataConfig) -> Reading:
    """One mailbox or mail by itself."""
    return read_mail([file], data)


# -------------------------------------------------------------------------------------------------------- who answers


@dataclass(frozen=True)
class _Voices:
    """Whose the mailbox is, and which addresses are a firm's."""

    owner: str = ""
    why: str = ""
    domain: str = ""  # of a firm whose people answer
    services: bool = False  # addresses such as support@ and info@ take part in much of it
    given: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()
    by_turns: bool = False  # nobody's mailbox (a mailing list): each mail of a chain answers the one before

    def is_service(self, address: str) -> bool:
        local, _, domain = address.rpartition("@")
        if _NO_ANSWER.match(local):
            return False
        return bool(self.services and _SERVICE.match(local)) or bool(self.domain and domain == self.domain)

    def answers(self, address: str) -> bool:
        if self.given or self.domains:
            return address in self.given or address.rpartition("@")[2].endswith(self.domains or ("\0",))
        return address == self.owner or self.is_service(address)


def _voices(spool: Spool, data: DataConfig) -> _Voices:
    total = spool.refused[""]
    given = frozenset(name.lower() for name in data.assistant)
    domains = tuple(domain.lower().lstrip("@") for domain in data.assistant_domain)
    owner = why = firm = ""
    served = 0
    by_turns = not (given or domains) and spool.from_lists > 0.5 * total
    if not by_turns:
        for number, count in spool.meets.most_common(50):
            local, _, domain = spool.addresses[number].rpartition("@")
            if _SERVICE.match(local):
                served += count
                firm = firm or (domain if count >= 0.3 * total and not _FREE.search(domain) else "")
        owner = _owner(spool, total)
        why = f"in {spool.meets[spool.number(owner)]} of {total} mails" if owner else ""
    return _Voices(owner, why, firm, served >= 0.2 * total, given, domains, by_turns)


def _owner(spool: Spool, total: int) -> str:
    """The address that nearly every mail comes from or goes to; empty: two people share all, or nobody does."""
    often = [(number, count) for number, count in spool.meets.most_common(20) if count >= 0.8 * total]
    writing = [number for number, count in often if spool.senders[number] >= 0.02 * total]
    first = max(writing, key=lambda number: spool.meets[number], default=-1)
    if first < 0 or any(spool.meets[other] == spool.meets[first] for other in writing if other != first):
        return ""
    return spool.addresses[first]


# ------------------------------------------------------------------------------------------------------------- turns


class _Letters:
    """The mails of a spool as turns, thread by thread, and the group of each record that is made of them."""

    def __init__(
        self, files: Sequence[InputFile], spool: Spool, forest: Forest, voices: _Voices, problems: list[Entry]
    ) -> None:
        self._names = [file.name for file in files]
        self._spool, self._forest, self._voices, self._problems = spool, forest, voices, problems
        self._recent: deque[dict[tuple[str, int], tuple[str, bool]]] = deque(maxlen=4)  # of the last few chains
        self._group_of = self._groups()

    def turns(self) -> Iterator[Turn | Entry]:
        yield from self._problems
        rebuilt = 0
        for mail in range(len(self._spool)):
            if not self._spool.taken[mail]:
                yield self._refused(self._spool.letter(mail))
            elif self._forest.is_root(mail):
                for chain in self._forest.chains(mail):
                    for item in self._chain(chain):
                        rebuilt += isinstance(item, Turn) and item.id == "quoted"
                        yield item
        for rule, count in sorted(self._spool.cuts.items()):
            if rule != "attachments listed":
                detail = f"{self._spool.characters[rule]:,} characters"
                yield Entry("message", self._names[0], "changed", rule, count, detail=detail)
        if rebuilt:
            detail = "what a mail quotes stands before it, where the quoted mail does not"
            yield Entry("message", self._names[0], "changed", "question taken from the quote", rebuilt, detail=detail)

    def grouped(self, rows: Iterable[Record | Entry]) -> Iterator[Record | Entry]:
        """The records with their group: the customer, else the thread; the branches of one thread have the same."""
        for row in rows:
            if not isinstance(row, Entry):
                place = row["source"]["file"], row["source"]["line"]
                for known in self._recent:
                    if place in known:
                        group, quoted = known[place]
                        row["group"] = group or None
                        row["tags"] = ["quoted", *row["tags"]] if quoted else row["tags"]
                        break
            yield row

    def _chain(self, chain: Chain) -> Iterator[Turn | Entry]:
        letters = [self._spool.letter(mail) for mail in chain.mails]
        first = letters[0]
        before = self._before(first, chain)
        thread = f"{first.id or self._names[first.file]}#{chain.root}/{chain.branch}"
        group = self._group_of.get(chain.root, "")
        quoted = before is not None and before.id == "quoted"
        self._recent.append({(self._names[one.file], one.line): (group, quoted) for one in letters})
        if before is not None:
            before.thread = thread
            before.role = "user" if self._voices.by_turns else ""
            yield before
        time = before.time if before is not None else None
        last = before
        for place, letter in enumerate(letters):
            turn = self._turn(letter, thread)
            if self._voices.by_turns:
                same = last is not None and last.speaker == turn.speaker
                turn.role = "user" if last is None else last.role if same else _OTHER[last.role]
            last = turn
            if place == 0 and before is None:
                turn.text = with_subject(letter.subject, letter.text)
            if place + 1 < len(letters):
                turn.text = _with_answered(turn.text, letters[place + 1])
            if time is not None:  # clocks go wrong: an answer is not older than what it answers
                turn.time = max(turn.time or time, time)
            time = turn.time
            yield turn
            if letter.attachments:
                detail = f"{turn.file}, line {turn.line}: {'; '.join(letter.attachments[:20])}"
                id = row_id(turn.file, turn.line)
                yield Entry("message", id, "changed", "attachments listed", len(letter.attachments), detail=detail)
            if letter.detail:
                yield Entry("message", row_id(turn.file, turn.line), "changed", "mail too large", detail=letter.detail)

    def _turn(self, letter: Letter, thread: str) -> Turn:
        return Turn(
            letter.sender,
            letter.text,
            letter.line,
            time=letter.time,
            name=letter.name,
            thread=thread,
            id=letter.id,
            answer=self._voices.is_service(letter.sender),
            file=self._names[letter.file],
        )

    def _before(self, first: Letter, chain: Chain) -> Turn | None:
        """What the first mail of a chain answers: as it quotes it, else the mail itself once more."""
        turn = self._turn(first, "")
        turn.id = "quoted"
        turn.answer = False
        quoted = clean_quote(first.quoted) if first.quoted else ""
        if chain.parent >= 0:
            parent = self._spool.letter(chain.parent)
            turn.speaker, turn.name, turn.time = parent.sender, parent.name, parent.time
            turn.text, turn.id = (quoted, "quoted") if len(quoted) >= 20 else (parent.text, "again")
        elif not quoted:
            return None
        else:
            turn.text, turn.time = quoted, None if first.time is None else first.time - 1
            turn.speaker, turn.name = self._quoted_speaker(first)
        if turn.speaker == first.sender and chain.parent < 0:
            return None  # one's own words once more
        turn.answer = self._voices.is_service(turn.speaker)
        return turn

    def _quoted_speaker(self, letter: Letter) -> tuple[str, str]:
        if letter.quoted_address:
            return letter.quoted_address, letter.quoted_name
        if letter.quoted_name:
            return letter.quoted_name.casefold(), letter.quoted_name
        others = [address for address in letter.to if address != letter.sender]
        return (others[0] if len(others) == 1 else "somebody who is quoted"), ""

    def _refused(self, letter: Letter) -> Entry:
        file = self._names[letter.file]
        about = f"{letter.subject} ({letter.sender})" if letter.subject else letter.sender
        if letter.refused == "duplicate":
            place = f"{file}, line {letter.line}: {about}"
            return Entry(
                "message", row_id(file, letter.line), "merged", "same Message-ID", parents=(file,), detail=place
            )
        return not_a_turn(file, letter.line, letter.refused, about)

    def _groups(self) -> dict[int, str]:
        """The group of each thread by its root."""
        spool, threads, customers = self._spool, {}, {}
        numbers = [number for number, address in enumerate(spool.addresses) if self._voices.answers(address)]
        answering = set(numbers)
        for root in range(len(spool)):
            if not self._forest.is_root(root):
                continue
            threads[root] = f"thread {root}"
            if answering:
                people = [spool.sender[root], *spool.people_of(root)]
                customer = next((number for number in people if number not in answering), -1)
                customers[root] = spool.addresses[customer] if customer >= 0 else f"thread {root}"
        if len(set(customers.values())) >= FEWEST_GROUPS:
            return customers
        return threads if len(threads) >= FEWEST_GROUPS else {}


def _with_answered(text: str, answer: Letter) -> str:
    """What a mail says, with what an answer between its lines quotes and it does not say: its words were lost."""
    if not answer.answered:
        return text
    known = _squeezed(text)
    missing = [
        paragraph
        for paragraph in (clean_quote(one) for one in answer.answered.split("\n\n"))
        if (bare := _squeezed(paragraph)) and bare not in known
    ]
    return "\n\n".join([text, *missing])


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def _notes(spool: Spool, by_turns: bool) -> list[str]:
    notes = []
    if copies := spool.refused["duplicate"]:  # what else is not taken, the ledger counts
        notes.append(f"{_number(copies, 'mail')} taken once: the same Message-ID again")
    if by_turns:
        notes.append("most mails come from mailing lists: each mail is the answer to the one before it in its thread")
    return notes


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
