"""What looks private to the tagger and is nobody's: offices, amounts, labels, results, and parts of a whole.

Looked at only where the tagger found something; what has a form of its own (:mod:`patterns`, :mod:`secrets`) stays.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from ownchat.clean.private.lists import united
from ownchat.clean.private.spans import Span

# How authorities, laws and associations end in languages whose words grow together: no surname does.
_OFFICE = re.compile(
    r"\w{3,}(?:verket|styrelsen|myndigheten|nämnden|balken|lagen|förbundet|föreningen|företagen|branschen|kommissionen"
    r"|direktoratet|ministerium|ministeriet|gesetz|gesetzbuch|verordnung|behörde|kammer|anstalt|gericht|verband)s?",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_AMOUNT = re.compile(  # a small number or a range of two, perhaps with the word before it
    r"(?:[a-z]+ )?\d{1,3}(?:[,. ]?\d{3}|\.\d{1,2})?(?:\s?[-–]\s?\d{1,3}(?:[,. ]?\d{3}|\.\d{1,2})?)?"
)
_UNIT = re.compile(  # what is counted or measured, right behind it
    r"\s?(?:%|°|(?:[cmk]?m|k?g|mg|m?l|[kmgt]b|[kmg]hz|kwh?|mah|m²|m2|m³|sq|feet|ft|inch(?:es)?|yards?|miles?"
    r"|(?:kilo|centi|milli)?met(?:er|re)s?|degrees|percent|hours?|minutes?|mins?|seconds?|secs?|days?|weeks?|months?"
    r"|years?|people|persons|pieces|items|times|dollars?|bucks|euros?|pounds|usd|eur|gbp|sek|kr|kronor)\b)",
    re.I,
)
_NUMBERED = frozenset(
    ["reference", "national_id", "phone", "card", "bank_account", "passport", "tax_id", "driving_licence"]
)
_TELLING = re.compile(
    r"digit|last|end|pin|code|num|\bno\b|ssn|social|card|acc|\bid\b|zip|ref|order|pass|address|live", re.I
)
# Words right before a number that is counted or worked out; the first kind may stand further off in the sentence.
_SMALL = re.compile(r"\d{1,6}(?:\.0{1,2})?")
_RESULT = re.compile(r"\b(?:answer|result|total|sum|product|equals?|makes?)\b[^\n.!?]{0,40}$", re.I)
_COUNTED = re.compile(
    r"(?:\b(?:about|around|costs?|years?|pages?|lines?|steps?|versions?)\b\W{0,3}(?:(?:is|was|of|to|only)\W{1,3})?"
    r"|(?:[\d)\]%]|(?<!\w)[a-z])\s?=\s?[$€£]?)$",
    re.I,
)
_CLAIMED = re.compile(  # words that call a number somebody's, where they stand nearer to it
    _TELLING.pattern + r"|claim|polic|booking|reserv|invoice|ticket|\bcase|member|confirm|phone|call|mobile|user|login"
    r"|\bdob\b|licen|street|road|security", re.I
)  # fmt: skip


def is_nobody(text: str, span: Span) -> bool:
    """What looks like a name or number to the tagger and is not: an office, an amount with its unit, a year, a result.

    A word before it that calls it more ("order", "code") counts for more than what it looks like.

    >>> is_nobody("Skatteverket says so", Span(0, 12, "person", 0.8, "tagger"))
    True
    >>> is_nobody("index 2026", Span(6, 10, "national_id", 0.6, "tagger"))
    True
    >>> is_nobody("it is 8849 m high", Span(6, 10, "national_id", 0.6, "tagger"))
    True
    >>> is_nobody("code 8849 m", Span(5, 9, "reference", 0.6, "tagger"))
    False
    >>> is_nobody("The answer is 4821.", Span(14, 18, "national_id", 0.6, "tagger"))
    True
    """
    start, end = span.start, span.end
    value = text[start:end]
    if span.type == "person":
        return _OFFICE.fullmatch(value) is not None
    if span.type in _NUMBERED and _UNIT.match(text, end) and _AMOUNT.fullmatch(value):
        return _TELLING.search(text, max(start - 20, 0), start) is None
    if (span.type in _NUMBERED or span.type == "address") and _SMALL.fullmatch(value):
        before = text[max(start - 60, 0) : start]
        called = _RESULT.search(before) or _COUNTED.search(before)
        if called:
            return _CLAIMED.search(before, called.start()) is None
    if span.type != "date" and _YEAR.fullmatch(value) and text.strip() != value:
        return span.score < 0.95 and _TELLING.search(text, max(start - 40, 0), start) is None
    return False


# What is one thing, whatever the tagger makes of its parts.
_WHOLE = re.compile(
    r"(?<![\w.\-])(?:(?P<hash>[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32,64}|[0-9A-F]{32,64})(?![\w\-])"
    r"|(?P<date>\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+\-]\d\d:?\d\d)?)?"
    r"|\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?)(?![\w\-:])"
    r"|(?P<number>\d{1,15}\.\d{1,20}|\d{1,3}(?:,\d{3}){1,5}(?:\.\d{1,20})?)(?![\w\-]|[.,]\d))"
)
_KEY = re.compile(  # calls a hash somebody's
    r"\bid\b|number|\bno\b|\bref|order|acc(?:oun)?t|customer|case|ticket|booking|policy|claim|card|\bkey|token|pass",
    re.I,
)
_JOINED_DATE = re.compile(r"(?<=[a-z]-)\d{4}-\d\d-\d\d(?![\w\-])", re.I)  # "backup-2026-11-22"
_LABEL = re.compile(r"(?<![\w@.\-])[^\W\d_]{1,40}(?:[_\-][^\W\d_]{1,40}){1,12}(?![\w@\-]|\.\w)")
_ADDRESS = re.compile(
    r"(?<![\w.+%\-])(?P<email>[\w.+%\-]{1,64}@(?:[\w\-]{1,63}\.){1,6}[^\W\d_]{2,24})"
    r"|(?<!\w)(?P<url>(?:https?://|www\.)[^\s<>\"')\]]{1,2000}(?<![.,;:!?]))|(?<![\w@/.\-])(?P<username>@\w{2,40})",
    re.I,
)
_QUOTED = re.compile(r"[\"'`“]([^\s\"'`“”]{6,64})[\"'`”]")
_NAMES = ("person", "username", "organisation", "place")
CERTAIN = 0.6  # of a name in a URL, from which the whole URL is somebody's


def addresses(text: str) -> list[tuple[int, int, str]]:
    """Where e-mail addresses, URLs and handles stand, and their type: no name is masked inside one.

    >>> addresses("a.b@c.org")
    [(0, 9, 'email')]
    """
    if "@" not in text and "://" not in text and "www." not in text:
        return []
    return [(*match.span(), match.lastgroup or "") for match in _ADDRESS.finditer(text)]


def settle(text: str, spans: list[Span], types: frozenset[str], is_common: Callable[[str], bool]) -> list[Span]:
    """The tagger's spans, in order, without what is nobody's; what is one thing is masked whole, or not at all."""
    spans = [span for span in spans if not is_nobody(text, span)]
    if not spans:
        return spans
    starts, ends = [span.start for span in spans], [span.end for span in spans]
    cuts: list[tuple[int, int]] = []  # what no span of the tagger covers
    wholes: list[Span] = []
    for start, end, kind in _stretches(text):
        touching = spans[bisect_right(ends, start) : bisect_left(starts, end)]
        if kind == "url":  # a number of an order in one may go alone
            touching = [span for span in touching if span.type in _NAMES]
        if not touching:
            continue
        before, type = text[max(start - 24, 0) : start], ""
        if kind == "label":
            within = [span for span in touching if start <= span.start and span.end <= end]
            cuts += [span[:2] for span in within if _is_label(text[start:end], span, is_common)]
            continue
        if kind == "number":  # what covers more than it stays, what covers it in part does not
            is_claimed = _CLAIMED.search(before) is not None
            cuts += [(start, end) for span in touching if not _holds(span, start, end, is_claimed)]
            continue
        if kind == "hash":
            type = "reference" if _KEY.search(before) else ""
            cuts += [span[:2] for span in touching]
        elif kind == "quoted":
            type = "password"
            if type not in types:
                continue
        elif kind == "date":
            type = "date" if any(span.type == "date" for span in touching) else ""
        elif any(span.type == "person" and span.score >= CERTAIN for span in touching):
            type = kind
        if kind == "url" and type not in types:
            cuts += [(max(start, span.start), min(end, span.end)) for span in touching]
        else:
            cuts.append((start, end))
        if type in types:
            wholes.append(Span(start, end, type, max(span.score for span in touching), "tagger"))
    return [*_without(spans, united(cuts)), *wholes] if cuts else spans


def _stretches(text: str) -> Iterator[tuple[int, int, str]]:
    """What may be one thing, and of what kind it is."""
    yield from addresses(text)
    for match in _WHOLE.finditer(text):
        yield *match.span(), match.lastgroup or ""
    if "_" in text or "-" in text:
        for match in _LABEL.finditer(text):
            yield *match.span(), "label"
        for match in _JOINED_DATE.finditer(text):
            yield *match.span(), "date"
    for match in _QUOTED.finditer(text):
        if any(map(str.isdigit, match[1])) and any(mark in match[1] for mark in "@#$%^&*!"):
            yield *match.span(1), "quoted"


def _holds(span: Span, start: int, end: int, is_claimed: bool) -> bool:
    """Whether a span covers more than a number with a point, or just it and for a reason."""
    if not (span.start <= start and end <= span.end):
        return False
    return (span.start, span.end) != (start, end) or is_claimed or span.score >= 0.8


def _without(spans: list[Span], cuts: list[tuple[int, int]]) -> Iterator[Span]:
    """What of the spans lies outside of the cuts, both in order and disjoint."""
    ends = [end for _, end in cuts]
    for span in spans:
        at, start = bisect_right(ends, span.start), span.start
        while at < len(cuts) and cuts[at][0] < span.end:
            if start < cuts[at][0]:
                yield span._replace(start=start, end=cuts[at][0])
            start, at = cuts[at][1], at + 1
        if start < span.end:
            yield span._replace(start=start)


def _is_label(joined: str, span: Span, is_common: Callable[[str], bool]) -> bool:
    """Whether words joined to one are a label ("card_arrival"): all of them common, or next to all of many.

    Half of them are enough against what is no name: an address of mail has its "@", a number its digits.
    """
    parts = re.split("[_-]", joined)
    if "_" not in joined and not joined.islower():
        return False
    rare = sum(not is_common(part) for part in parts)
    is_name = span.type in ("person", "username", "password")
    return rare == 0 or (len(parts) > 2 and rare == 1) or (not is_name and 2 * rare <= len(parts))


BARE = 0.9  # least score in an assistant's message of a few words: a label or a result, and nobody's as a rule
MOST_WORDS = 3
_PLAIN_RESULT = re.compile(r"\s*[-+$€£]?\s?\d{1,6}(?:[.,]\d{1,6})?\s?[%$€£]?\.?\s*")


def is_bare(text: str) -> bool:
    """At most three words, or nothing but a number.

    >>> is_bare("card_arrival"), is_bare("1 204 500.75"), is_bare("Your name is Anna Berg")
    (True, True, False)
    """
    return len(text.split(None, MOST_WORDS)) <= MOST_WORDS or not re.search(r"[^\W\d_]", text)


def surest(text: str, spans: list[Span]) -> list[Span]:
    """The tagger's spans that stay in an assistant's bare message: none in a number of up to six digits."""
    if _PLAIN_RESULT.fullmatch(text):
        return []
    return [span for span in spans if span.score >= BARE]


def outside_addresses(spans: list[Span], text: str) -> list[Span]:
    """The spans that touch no e-mail address, URL or handle."""
    found = united((start, end) for start, end, _ in addresses(text))
    ends = [end for _, end in found]

    def touches(span: Span) -> bool:
        at = bisect_right(ends, span.start)
        return at < len(found) and found[at][0] < span.end

    return [span for span in spans if not touches(span)]
