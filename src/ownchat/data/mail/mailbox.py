"""Mail as it lies in files: mbox (all its dialects), a file for each mail (eml, maildir), found and taken apart.

mbox: RFC 4155, and the dialects mboxo, mboxrd, mboxcl (Rahul Dhesi's and Dovecot's descriptions). Maildir: D. J.
Bernstein's, with the flags behind ":2,".
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple

from ownchat.data.files import InputFile
from ownchat.data.mail.message import is_header

CHUNK = 1 << 20
LARGEST_MAIL = 64_000_000  # bytes: of a larger one the end is not read, which is an attachment's

_TIME = rb"\d{1,2}:\d{2}(?::\d{2})?"
_FIELD = rb"(?:>?From |[!-9;-~]{1,70}[ \t]*:)"
# "From jane@example.org Thu Aug 22 12:36:23 2002", with zones, without an address, or as Gmail and Thunderbird write it
_SEPARATOR = re.compile(rb"From [^\n]{0,200}?\b" + _TIME + rb"\b[^\n]{0,60}\r?\n(?=" + _FIELD + rb")")
_STRICT = re.compile(
    rb"From \S+ +(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) +(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d{1,2} +"
    + _TIME
    + rb"(?: [+-]\d{4}| [A-Z]{3,5})? +\d{4}[^\n]{0,20}\r?\n(?="
    + _FIELD
    + rb")"
)
_SEPARATOR_TEXT = re.compile(
    r"\s*From [^\n]{0,200}?\b\d{1,2}:\d{2}(?::\d{2})?\b[^\n]{0,60}\r?\n>?[!-~]{1,70}[ \t]*[: ]"
)
_CONTENT_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d{1,12})[ \t]*\r?$", re.I | re.M)
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_FLAGS = re.compile(r"[:;!]2,([A-Za-z]{0,12})$")
_LOOK = 400  # bytes after "From " that a separator needs to be told


class RawMail(NamedTuple):
    """The bytes of one mail, the line it begins on, and what its place tells."""

    line: int
    content: bytes
    in_mbox: bool = False  # lines that begin with "From " have a ">" before them
    refused: str = ""  # maildir's flags: a draft, a deleted mail
    cut: bool = False  # larger than LARGEST_MAIL


# a document that keeps the header of the mail it once was says what it is written in now
_DOCUMENT = re.compile(rb"^content-type:\s*text/(asciidoc|markdown|x-rst|x-tex)", re.IGNORECASE | re.MULTILINE)


def recognise_mail(file: InputFile) -> float:
    """A mailbox or a mail: it begins with a "From " line or with the header fields of a mail."""
    if file.magic:
        return 0.0
    beginning = file.sample[:64_000].lstrip("\ufeff \t\r\n")
    if _SEPARATOR_TEXT.match(beginning):
        beginning = beginning.partition("\n")[2]
        if is_header(_block(beginning), fewest=2):
            return 0.98
    named = file.suffix in (".eml", ".mbox", ".mbx", ".emlx")
    if file.suffix == ".emlx":  # Apple Mail: the number of bytes stands on a line before
        beginning = beginning.partition("\n")[2]
    if not re.match(r">?[!-9;-~]{1,70}[ \t]*:", beginning) and not named:
        return 0.0
    if is_header(_block(beginning)):
        return 0.0 if _DOCUMENT.search(_block(beginning)) and not named else 0.97
    return 0.6 if named else 0.0


def raw_mails(file: InputFile) -> Iterator[RawMail]:
    """The mails of a file one by one; memory is bounded by the largest of them (and :data:`LARGEST_MAIL`)."""
    with file.open_binary() as stream:
        beginning = bytearray(stream.read(CHUNK))
        skipped = len(beginning) - len(beginning.lstrip(b"\xef\xbb\xbf \t\r\n"))
        if _wide(beginning) is None and _SEPARATOR.match(beginning, skipped):
            line = 1 + beginning.count(b"\n", 0, skipped)
            del beginning[:skipped]
            yield from _split(stream, beginning, line)
            return
        content = bytes(beginning) + stream.read(LARGEST_MAIL - len(beginning))
        cut = bool(stream.read(1))
    if (encoding := _wide(beginning)) is not None:
        content = content.decode(encoding, "replace").encode("utf-8", "replace")
    if file.suffix == ".emlx" and (count := re.match(rb"\s*(\d{1,12})\s*\n", content)):
        content = content[count.end() : count.end() + int(count[1])]
    body = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    yield RawMail(1, body, body.startswith(b">From "), _flags(file.name), cut)


# ----------------------------------------------------------------------------------------------------------------


def _split(stream: object, buffer: bytearray, line: int) -> Iterator[RawMail]:
    read = stream.read  # type: ignore[attr-defined]
    at_end = cut = False
    place = 1  # where the search for the next separator goes on; the buffer begins with one
    while True:
        at = buffer.find(b"\nFrom ", max(0, place - 1))
        if at < 0 or (at + _LOOK > len(buffer) and not at_end):
            if not at_end:
                place = max(1, len(buffer) - 8) if at < 0 else at
                chunk = read(CHUNK)
                at_end = not chunk
                buffer += chunk
                if len(buffer) > LARGEST_MAIL + 2 * CHUNK and place > LARGEST_MAIL:
                    line += buffer.count(b"\n", LARGEST_MAIL, place)
                    del buffer[LARGEST_MAIL:place]
                    place, cut = LARGEST_MAIL, True
                continue
            if at < 0:
                if content := bytes(buffer):
                    yield RawMail(line, content, True, "", cut)
                return
        if not _is_separator(buffer, at):
            place = at + 2
            continue
        if (beyond := _declared_end(buffer, at, cut)) > at:
            while beyond + _LOOK > len(buffer) and not at_end:
                chunk = read(CHUNK)
                at_end = not chunk
                buffer += chunk
            rest = bytes(buffer[beyond : beyond + 8]).lstrip()
            if rest.startswith(b"From ") or (at_end and not rest and beyond <= len(buffer) + 2):
                place = min(beyond, len(buffer))
                continue
        yield RawMail(line, bytes(buffer[: at + 1]), True, "", cut)
        line += buffer.count(b"\n", 0, at + 1)
        del buffer[: at + 1]
        place, cut = 1, False


def _is_separator(buffer: bytearray, at: int) -> bool:
    """Whether a mail begins after the line end at ``at``: after an empty line, or in the exact form of the line."""
    after_empty = buffer[at - 1 : at] == b"\n" or bytes(buffer[max(0, at - 2) : at]) == b"\n\r"
    return (_SEPARATOR if after_empty else _STRICT).match(buffer, at + 1) is not None


def _declared_end(buffer: bytearray, at: int, cut: bool) -> int:
    """Where the mail at the buffer's beginning ends as its Content-Length says (mboxcl2 quotes no line); 0: unsaid."""
    header = None if cut else _EMPTY_LINE.search(buffer, 0, at + 1)
    if header is None or b"content-length" not in bytes(buffer[: header.start()]).lower():
        return 0
    if not (length := _CONTENT_LENGTH.search(buffer, 0, header.start() + 1)):
        return 0
    end = header.end() + int(length[1])
    return end if end <= LARGEST_MAIL else 0


def _block(text: str) -> bytes:
    return re.split(r"\r?\n[ \t]*\r?\n", text, maxsplit=1)[0].encode("utf-8", "replace")


def _wide(beginning: bytes | bytearray) -> str | None:
    """UTF-16, as Windows' programs save text."""
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if beginning[1:64:2].count(0) > 24:
        return "utf-16-le"
    return "utf-16-be" if beginning[0:64:2].count(0) > 24 else None


def _flags(name: str) -> str:
    """What a maildir tells of a mail by its name: "...:2,ST" is seen and thrown away."""
    parts = name.split("/")
    if len(parts) > 1 and parts[-2] == "tmp" and re.match(r"\d{6,}\.", parts[-1]):
        return "draft"
    match = _FLAGS.search(parts[-1])
    flags = match[1] if match else ""
    return "deleted" if "T" in flags else "draft" if "D" in flags else ""
