"""One mail as bytes to what was said by whom: MIME parts, transfer encodings and charsets are undone here.

RFC 5322 (messages), RFC 2045 and 2046 (MIME), RFC 3676 (flowed text), RFC 3834 (automatic answers). Written for mail
as it is found: boundaries that are never closed, charsets that lie, base64 with holes. Nothing here raises for what
stands in a mail, and attachments are listed without being decoded.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field

from ownchat.data.mail.headers import (
    Fields,
    addresses,
    base64_bytes,
    decode_words,
    fields,
    parameters,
    seconds,
    split_header,
    text_of,
)
from ownchat.data.mail.html import html_text

DEEPEST = 20  # parts inside parts
MOST_PARTS = 1000

_MESSAGE_ID = re.compile(r"<([^<>\s]+)>")
_TAGS = re.compile(r"<[^>]{1,1000}>")
_UUENCODED = re.compile(r"^begin [0-7]{3,4} (\S.*)\n(?:[!-`]{1,62}\n)*?(?:`|)\n?end[ \t]*$", re.M)
_AUTO = re.compile(
    r"^(?:auto(?:matic|matisch)?[- :]?(?:reply|response|antwort|réponse)|automatische antwort|out of (?:the )?office"
    r"|abwesenheit|réponse automatique|respuesta automática|risposta automatica|resposta automática"
    r"|automatisch antwoord|autosvar|absence du bureau|fuera de la oficina)",
    re.I,
)
_BOUNCE = re.compile(
    r"^(?:undeliver(?:ed|able)|delivery (?:status notification|failure|has failed)|mail delivery (?:failed|subsystem)"
    r"|returned mail|failure notice|unzustellbar|warning: could not send|read:|gelesen:|lu :)",
    re.I,
)
_ROBOT = re.compile(r"^(?:mailer-daemon|postmaster|mail-daemon)@", re.I)
_LABELS = {"spam": "spam", "trash": "deleted", "drafts": "draft", "draft": "draft", "chat": "chat", "junk": "spam"}


@dataclass(slots=True)
class Mail:
    """What one mail says. ``refused``: why it is no part of a conversation (a rule of the ledger), empty if it is."""

    id: str = ""
    parents: list[str] = field(default_factory=list)  # Message-IDs, the nearest last
    subject: str = ""
    time: float | None = None
    sender: str = ""  # address in lower case
    name: str = ""
    recipients: list[str] = field(default_factory=list)
    delivered: str = ""  # the mailbox it lay in
    mailing_list: str = ""  # the mailing list that sent it round
    text: str = ""  # quotes, signatures and all
    attachments: list[str] = field(default_factory=list)
    refused: str = ""


def parse(raw: bytes, *, unquote_from: bool = False) -> Mail:
    """Understand one mail; ``unquote_from``: it stood in an mbox, where lines with "From " got a ">" before them.

    >>> mail = parse(b"From: Jane <jane@example.org>\\nSubject: Hi\\nMessage-ID: <1@example.org>\\n\\nHow are you?\\n")
    >>> mail.sender, mail.subject, mail.text
    ('jane@example.org', 'Hi', 'How are you?')
    """
    if b"\n" not in raw[:100_000]:
        raw = raw.replace(b"\r", b"\n")  # the line ends of old Macs
    block, start = split_header(raw)
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"")
    head = fields(block)
    mail = _from_header(head)
    if mail.refused:
        return mail
    parts = _Parts(unquote_from)
    parts.walk(head, raw, start, len(raw), 0)
    mail.attachments, mail.text = parts.attachments, parts.text()
    mail.refused = parts.refused
    return mail


def is_header(block: bytes, fewest: int = 3) -> bool:
    """Whether a text begins with the fields of a mail."""
    names = {name.lower() for name in re.findall(rb"^([A-Za-z][A-Za-z0-9-]{1,60})[ \t]*:[ \t]?", block, re.M)}
    who = names & {b"from", b"return-path", b"received", b"delivered-to", b"sender"}
    what = names & {b"date", b"message-id", b"subject", b"mime-version", b"to", b"content-type", b"received", b"sent"}
    return bool(who) and len(who | what) >= fewest


# ---------------------------------------------------------------------------------------------------------- header


def _from_header(head: Fields) -> Mail:
    senders = addresses(head.get("from", "")) or addresses(head.get("sender", ""))
    written = " ".join(decode_words(head.get("from", "")).split())[:120]
    name, sender = senders[0] if senders else (written, written.lower())  # Exchange's own names have no "@"
    own = _MESSAGE_ID.findall(head.get("message-id", "")) or head.get("message-id", "").split()
    references = _MESSAGE_ID.findall(head.get("references", ""))
    answered = _MESSAGE_ID.findall(head.get("in-reply-to", ""))[:1]  # others stand in remarks
    parents = [id for id in references if id not in answered] + answered
    to = [address for key in ("to", "cc") for _, address in addresses(head.get(key, ""))]
    delivered = addresses(head.get("delivered-to", "") or head.get("x-original-to", ""))
    return Mail(
        id=own[0][:500] if own else "",
        parents=list(dict.fromkeys(id[:500] for id in parents))[-50:],
        subject=" ".join(decode_words(head.get("subject", "")).split())[:500],
        time=seconds(head.get("date", "") or head.get("sent", "")),
        sender=sender,
        name=name,
        recipients=list(dict.fromkeys(to))[:100],
        delivered=delivered[0][1] if delivered else "",
        mailing_list=(
            head.get("list-id") or head.get("list-post") or head.get("x-beenthere") or head.get("mailing-list", "")
        )[-200:],
        refused=_refused(head, sender),
    )


def _refused(head: Fields, sender: str) -> str:
    """The rule by which a mail's header tells that nobody wrote it to be answered, or that it was thrown away."""
    subject = decode_words(head.get("subject", "")).strip()
    for label in head.get("x-gmail-labels", "").split(","):
        if rule := _LABELS.get(label.strip(' "').lower()):
            return rule
    status = head.get("x-mozilla-status", "")[:4]
    if re.fullmatch("[0-9a-fA-F]{4}", status) and int(status, 16) & 0x8:
        return "deleted"
    if head.get("x-spam-flag", "").upper().startswith("YES"):
        return "spam"
    if _ROBOT.match(sender) or "x-failed-recipients" in head or _BOUNCE.match(subject):
        return "bounce"
    automatic = head.get("auto-submitted", "no").lower().lstrip()
    if (
        not automatic.startswith("no")
        or "x-autoreply" in head
        or "x-autorespond" in head
        or head.get("precedence", "").lower().startswith("auto_reply")
        or _AUTO.match(subject)
    ):
        return "auto-reply"
    return ""


# ----------------------------------------------------------------------------------------------------------- parts


class _Parts:
    """The parts of a mail, walked: texts in order, attachments by name."""

    def __init__(self, unquote_from: bool) -> None:
        self.unquote_from = unquote_from
        self.texts: list[str] = []
        self.attachments: list[str] = []
        self.refused = ""
        self.seen = 0

    def text(self) -> str:
        return "\n\n".join(text for text in self.texts if text.strip()).strip()

    def walk(self, head: Fields, raw: bytes, start: int, end: int, depth: int) -> None:
        kind, given = parameters(head.get("content-type", "") or "text/plain")
        disposition, placed = parameters(head.get("content-disposition", ""))
        self.seen += 1
        if self.seen > MOST_PARTS or depth > DEEPEST:
            return
        if kind.startswith("multipart/") and (inner := _split(raw, start, end, given.get("boundary", ""))):
            self._multipart(kind, given, raw, inner, depth)
            return
        name = decode_words(placed.get("filename") or given.get("name") or "")
        is_text = kind.startswith(("text/", "multipart/")) or "/" not in kind
        if kind == "text/calendar" or head.get("content-class", "").endswith("calendarmessage"):
            self.refused = self.refused or "calendar"
        if not is_text or disposition == "attachment" or kind in ("text/calendar", "text/x-vcard", "text/directory"):
            what = name or decode_words(head.get("content-description", "")) or kind
            self.attachments.append(f"{' '.join(what.split())[:100]} ({kind}, {_size(head, end - start)})")
            if kind in ("application/pkcs7-mime", "application/x-pkcs7-mime") and depth == 0:
                self.refused = self.refused or "encrypted"
            return
        text = _decode_part(head, given, raw[start:end])
        if self.unquote_from and ">From " in text:
            text = re.sub(r"^>(>*From )", r"\1", text, flags=re.M)
        if kind == "text/html" or (kind == "text/plain" and re.match(r"\s*<(?:!doctype )?html\b", text, re.I)):
            text = html_text(text)
        elif kind in ("text/enriched", "text/richtext"):
            text = _TAGS.sub("", text)
        elif given.get("format", "").lower() == "flowed":
            text = unflow(text, delete_space=given.get("delsp", "").lower() == "yes")
        if "\nend" in text and "begin " in text:
            text = _UUENCODED.sub(self._uuencoded, text)
        self.texts.append(text)

    def _multipart(
        self, kind: str, given: dict[str, str], raw: bytes, inner: list[tuple[int, int]], depth: int
    ) -> None:
        parts = []
        for start, end in inner:
            block, length = split_header(raw[start : min(end, start + 65_536)])
            block = block.replace(b"\r\n", b"\n") if b"\r" in block else block
            parts.append((fields(block), start + length, end))
        if kind == "multipart/report":
            delivery = given.get("report-type", "").lower() != "disposition-notification"
            self.refused = self.refused or ("bounce" if delivery else "auto-reply")
        elif kind == "multipart/encrypted":
            self.refused = self.refused or "encrypted"
        elif kind == "multipart/alternative":
            self._alternative(parts, raw, depth)
        else:
            for head, start, end in parts:
                self.walk(head, raw, start, end, depth + 1)

    def _alternative(self, parts: list[tuple[Fields, int, int]], raw: bytes, depth: int) -> None:
        """The plain one; another where it is empty, or only tells that one should look at the HTML."""
        kinds = [parameters(head.get("content-type", "") or "text/plain")[0] for head, _, _ in parts]
        if "text/calendar" in kinds:
            self.refused = self.refused or "calendar"
        order = sorted(range(len(parts)), key=lambda i: (kinds[i] != "text/plain", kinds[i] == "text/calendar", -i))
        for place in order:
            before = len(self.texts)
            self.walk(parts[place][0], raw, parts[place][1], parts[place][2], depth + 1)
            found = "".join(self.texts[before:]).strip()
            excuse = len(found) < 300 and "html" in found.lower() and "text/html" in kinds
            if found and not (kinds[place] == "text/plain" and excuse):
                return
            if excuse:
                del self.texts[before:]

    def _uuencoded(self, match: re.Match[str]) -> str:
        self.attachments.append(f"{match[1][:100]} (uuencoded, {_bytes(len(match[0]) * 3 // 4)})")
        return ""


def _split(raw: bytes, start: int, end: int, boundary: str) -> list[tuple[int, int]]:
    """Where the parts between boundary lines begin and end; the last may lack its closing boundary."""
    if not boundary:
        return []
    marker = b"--" + boundary.encode("utf-8", "replace")
    found: list[tuple[int, int]] = []
    inside, place = -1, start
    while (at := raw.find(marker, place, end)) >= 0:
        place = at + len(marker)
        if at > start and raw[at - 1 : at] != b"\n":
            continue
        rest = raw[place : place + 80].split(b"\n", 1)[0].strip()
        if rest not in (b"", b"--"):  # the boundary of another level begins with this one
            continue
        if inside >= 0:
            found.append((inside, max(inside, at - 1 - (raw[at - 2 : at - 1] == b"\r"))))
        line_end = raw.find(b"\n", place, end)
        inside = end if line_end < 0 else line_end + 1
        if rest == b"--":
            return found
    if 0 <= inside < end:
        found.append((inside, end))
    return found


def _decode_part(head: Fields, given: dict[str, str], content: bytes) -> str:
    coding = head.get("content-transfer-encoding", "").strip().lower()
    if coding.startswith("quoted"):
        content = binascii.a2b_qp(content)
    elif coding.startswith("base64"):
        content = base64_bytes(content)
    text = text_of(content, given.get("charset", ""))
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix("\ufeff")


def unflow(text: str, *, delete_space: bool = False) -> str:
    """Flowed text with its paragraphs on one line each (RFC 3676); quotes keep their depth.

    >>> unflow("This is one \\nline.\\n> and a \\n> quote\\n")
    'This is one line.\\n> and a quote\\n'
    """
    done: list[str] = []
    depth_before, flowing = -1, False
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        is_signature = content == "-- "
        if flowing and depth == depth_before and not is_signature:
            done[-1] += content
        else:
            done.append(f"{'>' * depth} {content}" if depth else content)
        flowing, depth_before = content.endswith(" ") and not is_signature, depth
        if flowing and delete_space:
            done[-1] = done[-1][:-1]
    return "\n".join(line if line == "-- " else line.rstrip(" ") for line in done)


def _size(head: Fields, length: int) -> str:
    coded = head.get("content-transfer-encoding", "").strip().lower().startswith("base64")
    return _bytes(length * 3 // 4 if coded else length)


def _bytes(count: int) -> str:
    return f"{count} bytes" if count < 1000 else f"{count / 1000:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
