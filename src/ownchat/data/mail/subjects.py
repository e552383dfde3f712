"""Subjects without what replies and lists put before them (RFC 5256 calls it the base subject)."""

from __future__ import annotations

import re

SHORT_TEXT = 80  # characters: under a body of less than this the subject says what it is about

_REPLY = re.compile(
    r"^(?:re|aw|antw|antwort|sv|vs|ref|res|rép|rif|odp|ynt|vá|ha|r|回复|回覆|答复|返信|回信|отв)"
    r"(?:\s*[\[(]?\d+[\])]?|\s*\*\d+)?\s*[:：]\s*",
    re.I,
)
_FORWARD = re.compile(r"^(?:fwd?|wg|tr|enc|rv|i|vb|vl|pd|doorst|转发|轉寄|転送|пересл)\s*[:：]\s*", re.I)
_LIST = re.compile(r"^\[[^\]]{1,60}\]\s*")
_WAS = re.compile(r"\s*[(\[](?:was|war|fwd)\b[^)\]]*[)\]]\s*$", re.I)


def bare_subject(subject: str) -> tuple[str, bool]:
    """The subject as a key, and whether it is a reply's.

    >>> bare_subject("Re: [list] AW: Opening  hours"), bare_subject("Opening hours")
    (('opening hours', True), ('opening hours', False))
    """
    is_reply = False
    before = None
    while before != subject:
        before = subject
        subject = subject.lstrip()
        if match := _REPLY.match(subject):
            is_reply = True
            subject = subject[match.end() :]
        elif match := _FORWARD.match(subject) or _LIST.match(subject):
            subject = subject[match.end() :]
    return " ".join(_WAS.sub("", subject).split()).casefold(), is_reply


def with_subject(subject: str, text: str) -> str:
    """The opening message with its subject where the text alone does not say what it is about, or the subject asks.

    >>> with_subject("Printer on fire", "See above."), with_subject("Hi", "The printer is on fire. " * 5)[:11]
    ('Printer on fire\\n\\nSee above.', 'The printer')
    """
    if not subject or subject.casefold() in text.casefold():
        return text
    return f"{subject}\n\n{text}" if len(text) < SHORT_TEXT or subject.rstrip().endswith(("?", "？")) else text
