"""What help desks write in their fields: moments, texts in two forms, and messages that are letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ownchat.data.chats.exports import objects
from ownchat.data.files import InputFile
from ownchat.data.json_stream import JsonRow, json_lines
from ownchat.data.ledger import Entry
from ownchat.data.mail.body import clean
from ownchat.data.mail.headers import seconds
from ownchat.data.mail.html import html_text
from ownchat.data.markup import without_markup
from ownchat.data.reading import unreadable

_FAR = 4.1e9  # seconds: about 2100; larger numbers are milliseconds


def objects_in(file: InputFile, *path: str) -> Iterator[JsonRow | Entry]:
    """The objects of a JSON file, or of JSON lines, where a damaged line costs itself only."""
    first, _, rest = file.sample.lstrip("\ufeff \t\r\n").partition("\n")
    if path or not rest.strip() or not first.startswith("{") or not first.rstrip().endswith("}"):
        yield from objects(file, *path)
        return
    for row in json_lines(file):
        if row.problem:
            yield unreadable(file.name, row.line, "invalid JSON", row.problem, row.offset)
        elif isinstance(row.value, dict):
            if row.value:
                yield row
        else:
            yield unreadable(file.name, row.line, "not an object")


def moment(value: Any) -> float | None:
    """Seconds since 1970 of a number, an ISO 8601 text or a mail's date; None for anything else.

    >>> moment("2024-03-01T10:00:00Z"), moment(1709287200000), moment("Tue Oct 31 22:10:47 +0000 2017"), moment("soon")
    (1709287200.0, 1709287200.0, 1509487847.0, None)
    """
    if isinstance(value, bool) or value is None:
        return None
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        try:
            found = datetime.fromisoformat(text.removesuffix(" UTC"))
        except ValueError:
            return seconds(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    if number > _FAR:
        number /= 1e3 if number < _FAR * 1e3 else 1e6
    return number if 0 < number < _FAR else None  # NaN is neither


def text_field(row: Mapping[str, Any], plain: str, html: str, either: str) -> str:
    """The text of a message that stands in the plain field, else in the HTML one, else in one that may hold both."""
    if isinstance(found := row.get(plain), str) and found.strip():
        return found.replace("\r\n", "\n")
    if isinstance(found := row.get(html), str) and found.strip():
        return html_text(found)
    found = row.get(either)
    return without_markup(found) if isinstance(found, str) else ""


class Cuts:
    """Messages that may be mails: their quotes, signatures and disclaimers are cut and counted."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._messages: Counter[str] = Counter()
        self._characters: Counter[str] = Counter()

    def own(self, text: str) -> str:
        """What the writer says; the whole text where nothing would be left of it."""
        body = clean(text)
        if not body.text:
            return text.strip()
        self._messages.update(body.cuts.keys())
        self._characters.update(body.cuts)
        return body.text

    def entries(self) -> Iterator[Entry]:
        """What was cut so far, for the ledger."""
        for rule, count in sorted(self._messages.items()):
            yield Entry("message", self._file, "changed", rule, count, detail=f"{self._characters[rule]:,} characters")


def name_of(value: Any, *keys: str) -> str:
    """The first of some fields that is filled, as text; a bare value is its own name."""
    if isinstance(value, Mapping):
        found = (value.get(key) for key in keys)
        return next((str(one).strip() for one in found if isinstance(one, str | int) and str(one).strip()), "")
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
