"""``redact``: private data in a text becomes placeholders; ``Redactor`` keeps their numbering over a conversation.

Which number stands for whom is known in memory only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ownchat.clean.private.finder import DETECTORS, TITLES, Detector, Finder
from ownchat.clean.private.spans import DEFAULT, Redaction, Span
from ownchat.config import CleanConfig

_NUMBERED = re.compile(r"\[([A-Z][A-Z_]{1,24})_(\d{1,6})\]")


def redact(
    text: str,
    *,
    types: Iterable[str] = DEFAULT,
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    threshold: float | None = None,
    detectors: Iterable[Detector] = DETECTORS,
) -> Redaction:
    """The text with numbered placeholders in place of private data, and the spans of it that they replace.

    ``types`` are some of :data:`~ownchat.clean.private.spans.TYPES`. ``allow`` (never private) and ``deny`` (always)
    hold words, found without regard to case between word borders, or ``/expressions/``. ``threshold`` is the least
    probability, 0 to 1. Offsets are code points. Raises :class:`~ownchat.errors.ConfigError` for an unknown type, a
    threshold out of range or a broken expression.

    >>> redact("Write to anna.berg@example.com, order number 88-1204.").text
    'Write to [EMAIL_1], order number [REFERENCE_1].'
    """
    return Redactor(types=types, allow=allow, deny=deny, threshold=threshold, detectors=detectors).text(text)


class Redactor:
    """Redacts texts that belong together: one person, one placeholder.

    With ``surrogates`` realistic values stand in place of placeholders, the same for the same person.

    >>> redactor = Redactor()
    >>> [turn["content"] for turn in redactor.conversation([
    ...     {"role": "user", "content": "my email is anna@example.com"},
    ...     {"role": "assistant", "content": "Is anna@example.com right, or is it a.b@example.org?"}])]
    ['my email is [EMAIL_1]', 'Is [EMAIL_1] right, or is it [EMAIL_2]?']
    """

    def __init__(
        self,
        *,
        types: Iterable[str] = DEFAULT,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        threshold: float | None = None,
        surrogates: bool = False,
        detectors: Iterable[Detector] = DETECTORS,
    ) -> None:
        self.finder = Finder(types=types, allow=allow, deny=deny, threshold=threshold, detectors=detectors)
        self.surrogates = surrogates
        self.forget()

    @classmethod
    def of(cls, clean: CleanConfig) -> Redactor:
        """With the settings of ``clean``, and the default types where nothing is to be masked."""
        return cls(
            types=clean.private_types or DEFAULT,
            allow=clean.private_allow,
            deny=clean.private_deny,
            threshold=clean.private_threshold,
        )

    def forget(self) -> None:
        """Start to number anew: what follows is another conversation."""
        self._known: dict[tuple[str, str], str] = {}
        self._people: dict[str, frozenset[str]] = {}  # placeholder -> the words of that person's name
        self._by_word: dict[str, set[str]] = {}
        self._counts: dict[str, int] = {}

    def text(self, text: str) -> Redaction:
        """One text; numbering goes on from the texts before it."""
        return self.texts([text])[0]

    def texts(self, texts: Sequence[str], answers: Sequence[bool] | None = None) -> list[Redaction]:
        """Texts of one conversation: a name found in one is found in all of them.

        ``answers`` tells of each whether an assistant wrote it: one of a few words is a label or a result as a rule.
        """
        return self.replace(texts, self.finder.find([texts], None if answers is None else [answers])[0])

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages with their ``content`` redacted; everything else is as it was."""
        contents = [message.get("content") for message in messages]
        texts = [content for content in contents if isinstance(content, str)]
        answers = [one.get("role") == "assistant" for one in messages if isinstance(one.get("content"), str)]
        redacted = iter(self.texts(texts, answers))
        return [
            {**message, "content": next(redacted).text} if isinstance(content, str) else dict(message)
            for message, content in zip(messages, contents, strict=True)
        ]

    def replace(self, texts: Sequence[str], found: Sequence[list[Span]]) -> list[Redaction]:
        """The texts with their spans replaced; new numbers come after those of placeholders that stand there."""
        for text in texts:
            for match in _NUMBERED.finditer(text) if "[" in text else ():
                type = match[1].lower()
                self._counts[type] = max(self._counts.get(type, 0), int(match[2]))
        result = []
        for text, spans in zip(texts, found, strict=True):
            pieces, last = [], 0
            for span in spans:
                pieces += [text[last : span.start], self.placeholder(span.type, text[span.start : span.end])]
                last = span.end
            result.append(Redaction("".join([*pieces, text[last:]]), spans))
        return result

    def placeholder(self, type: str, value: str) -> str:
        """What stands for a value: the same for the same value, and for a part of a person's name."""
        words = re.findall(r"\w+", value.casefold())
        key = (type, " ".join(words) if type in ("person", "organisation", "place", "address") else "".join(words))
        known = self._known.get(key)
        if known is None and type == "person":
            known = self._same_person(words)
        if known is None:
            self._counts[type] = number = self._counts.get(type, 0) + 1
            known = f"[{type.upper()}_{number}]"
            if self.surrogates:
                from ownchat.clean.private.surrogates import surrogate

                known = surrogate(type, value, number)
        self._known[key] = known
        if type == "person":
            parts = _parts(words)
            self._people[known] = self._people.get(known, frozenset()) | parts
            for word in parts:
                self._by_word.setdefault(word, set()).add(known)
        return known

    def _same_person(self, words: list[str]) -> str | None:
        """The one person whose name holds these words, or is part of them; none when there are two or no such."""
        parts = _parts(words)
        near = {known for word in parts for known in self._by_word.get(word, ())}
        fitting = [known for known in near if parts <= self._people[known] or self._people[known] <= parts]
        return fitting[0] if len(fitting) == 1 else None


def _parts(words: list[str]) -> frozenset[str]:
    """The words that tell a person: no titles, no initials."""
    return frozenset(word for word in words if len(word) > 2 and word not in TITLES)
