"""Finds private data in many texts at once, without replacing it.

Layers look at each text: the user's deny list, forms and key formats (:mod:`patterns`, :mod:`secrets`), and the
tagger. A name that was found once is then found wherever else it stands in the same text or conversation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from ownchat.clean.private.lists import compile_list, outside, places
from ownchat.clean.private.nobody import is_bare, outside_addresses, settle, surest
from ownchat.clean.private.patterns import find_in_all, find_patterns
from ownchat.clean.private.secrets import find_secrets
from ownchat.clean.private.spans import CUSTOM, DEFAULT, TYPES, Span, disjoint, joined
from ownchat.errors import ConfigError, nearest

THRESHOLD = 0.25  # one for all types and kinds of text; below a half, since a miss costs more than a mask too many
Detector = Literal["patterns", "secrets", "tagger", "presidio"]
DETECTORS: tuple[Detector, ...] = ("patterns", "secrets", "tagger")
PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]{1,24}(?:_\d{1,6})?\]")
BLOCK_CHARACTERS = 200_000  # texts that go to the tagger together
MARKS = ",.;:!?-_/\n\"'”’»"  # a span does not begin with one
_WORD = re.compile(r"[^\W\d_]{3,40}")
TITLES = frozenset(  # what stands in names and tells nobody
    ["mr", "mrs", "ms", "miss", "dr", "prof", "sir", "judge", "justice", "lord", "herr", "frau", "mme", "von", "van",
     "der", "den", "del", "the", "and"]
)  # fmt: skip


class Finder:
    """Finds private data in many texts at once, without replacing it."""

    def __init__(
        self,
        *,
        types: Iterable[str] = DEFAULT,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        threshold: float | None = None,
        detectors: Iterable[Detector] = DETECTORS,
    ) -> None:
        self.types = frozenset(types)
        self.detectors = frozenset(detectors)
        self.threshold = THRESHOLD if threshold is None else threshold
        for name in sorted(self.types - set(TYPES)):
            raise ConfigError(
                f'no type of private data is called "{name}"', fix=nearest(name, TYPES) or ", ".join(TYPES)
            )
        for name in sorted(self.detectors - {*DETECTORS, "presidio"}):
            raise ConfigError(f'no detector is called "{name}"', fix=nearest(name, DETECTORS) or ", ".join(DETECTORS))
        if not 0 < self.threshold <= 1:
            raise ConfigError(
                f"the threshold {self.threshold} is not between 0 and 1", fix="take a number such as 0.25"
            )
        self.allow, self.deny = compile_list(allow, "allow"), compile_list(deny, "deny")
        self._tagger = None
        if "tagger" in self.detectors:
            from ownchat.clean.private.tagger import default_tagger

            self._tagger = default_tagger()

    def find(
        self, conversations: Sequence[Sequence[str]], answers: Sequence[Sequence[bool]] | None = None
    ) -> list[list[list[Span]]]:
        """For each text of each conversation its spans, sorted and disjoint.

        ``answers`` tells of each text whether an assistant wrote it: one of a few words is a label or a result, where
        the tagger has to be surer.
        """
        texts = [text for conversation in conversations for text in conversation]
        flags = [flag for some in answers for flag in some] if answers is not None else [False] * len(texts)
        bare = iter([flag and is_bare(text) for flag, text in zip(flags, texts, strict=True)])
        flat: list[list[Span]] = []
        others: list[list[tuple[int, int]]] = []
        for some in _blocks(texts, BLOCK_CHARACTERS):
            tagged, against = self._tag(some)
            others += against
            layers = zip(some, self._form(some), self._settle(some, tagged, bare), strict=True)
            flat += [self._resolve(text, formed, tagged) for text, formed, tagged in layers]
        found, start = [], 0
        for conversation in conversations:
            end = start + len(conversation)
            spans = self._repeat(conversation, flat[start:end], others[start:end])
            found.append([_entitled(text, its_spans) for text, its_spans in zip(conversation, spans, strict=True)])
            start = end
        return found

    def _form(self, texts: Sequence[str]) -> list[list[Span]]:
        found: list[list[Span]] = [[] for _ in texts]

        def secrets(text: str) -> Iterator[Span]:
            return (Span(*one) for one in find_secrets(text) if one[2] in self.types)

        def presidio(text: str) -> list[Span]:
            from ownchat.clean.private.presidio import find_presidio

            return find_presidio(text, self.types)

        layers: list[list[list[Span]]] = []
        if "patterns" in self.detectors:
            layers.append(find_in_all(texts, lambda text: find_patterns(text, self.types)))
        if "secrets" in self.detectors:
            layers.append(find_in_all(texts, secrets))
        if "presidio" in self.detectors:
            layers.append([presidio(text) for text in texts])
        for layer in layers:
            for spans, more in zip(found, layer, strict=True):
                spans += [span for span in more if span.score >= self.threshold]
        return found

    def _settle(self, texts: Sequence[str], tagged: list[list[Span]], bare: Iterator[bool]) -> list[list[Span]]:
        result = []
        for text, spans, is_label in zip(texts, tagged, bare, strict=False):
            if is_label:
                spans = surest(text, spans)
            if spans and self._tagger is not None:
                spans = settle(text, spans, self.types, self._tagger.is_common)
            result.append(spans)
        return result

    def _resolve(self, text: str, formed: list[Span], tagged: list[Span]) -> list[Span]:
        denied = [Span(start, end, CUSTOM, 1.0, "deny list") for start, end in places(self.deny, text)]
        kept = (
            [Span(*match.span(), "", 1.0, "placeholder") for match in PLACEHOLDER.finditer(text)] if "[" in text else []
        )
        if not (formed or tagged or denied):
            return []
        spans = joined(text, [span for span in disjoint(text, [kept, denied, formed, tagged]) if span.type])
        if self.allow and spans:
            spans = outside(spans, places(self.allow, text))
        return spans

    def _tag(self, texts: Sequence[str]) -> tuple[list[list[Span]], list[list[tuple[int, int]]]]:
        """What the tagger finds in each text, and where it sees a place or an organisation rather than a person."""
        spans: list[list[Span]] = [[] for _ in texts]
        others: list[list[tuple[int, int]]] = [[] for _ in texts]
        if self._tagger is None:
            return spans, others
        pieces = [(number, start, piece) for number, text in enumerate(texts) for start, piece in cut(text)]
        for some in _blocks(pieces, BLOCK_CHARACTERS):
            self._tag_block([piece for *_, piece in some], [one[:2] for one in some], spans, others)
        return spans, others

    def _tag_block(
        self,
        block: list[str],
        owners: list[tuple[int, int]],
        spans: list[list[Span]],
        others: list[list[tuple[int, int]]],
    ) -> None:
        from ownchat.clean.private.tagger import LABELS

        assert self._tagger is not None
        tokens, probabilities = self._tagger.probabilities(block)
        wanted = np.array([label in self.types for label in LABELS])
        if not len(tokens) or not wanted.any():
            return
        person, place, firm = (LABELS.index(label) for label in ("person", "place", "organisation"))
        elsewhere = probabilities[:, place] + probabilities[:, firm]
        for at in np.flatnonzero((elsewhere > probabilities[:, person]) & (elsewhere > 0.3)).tolist():
            number, offset = owners[int(tokens.texts[at])]
            others[number].append((int(tokens.starts[at]) + offset, int(tokens.ends[at]) + offset))
        mass = probabilities[:, wanted].sum(axis=1)
        best = np.flatnonzero(wanted)[probabilities[:, wanted].argmax(axis=1)]
        hits = np.flatnonzero(mass >= self.threshold)
        if not len(hits):
            return
        same = (np.diff(hits) == 1) & (np.diff(best[hits]) == 0) & (np.diff(tokens.texts[hits]) == 0)
        borders = np.concatenate([[0], np.flatnonzero(~same) + 1, [len(hits)]])
        for low, high in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            first, last = int(hits[low]), int(hits[high - 1])
            number, offset = owners[int(tokens.texts[first])]
            score = round(float(mass[first : last + 1].mean()), 3)
            start, end = int(tokens.starts[first]), int(tokens.ends[last])
            while start < end and block[int(tokens.texts[first])][start] in MARKS:
                start += 1
            spans[number].append(Span(start + offset, end + offset, LABELS[int(best[first])], score, "tagger"))

    def _repeat(
        self, texts: Sequence[str], found: list[list[Span]], others: list[list[tuple[int, int]]]
    ) -> list[list[Span]]:
        """Also the other places where a name stands that was found: a surname without its first name, say.

        And the other way round: a word that is a place or a firm more often than a person in these texts ("Alabama",
        whose neighbour once looked like a first name) is nobody wherever it stands alone.
        """
        names: dict[str, float] = {}
        votes: Counter[str] = Counter()
        for text, spans, against in zip(texts, found, others, strict=True):
            for span in spans:
                if span.type == "person":
                    for match in _WORD.finditer(text, span.start, span.end):
                        votes[match[0]] += 1
                        if span.score >= 0.6 and self._is_name(match[0]):
                            names[match[0]] = max(names.get(match[0], 0), span.score)
            for start, end in against:
                votes[text[start:end]] -= 1
        if not votes:
            return found
        outvoted = {word for word, count in votes.items() if count < 0}
        result = []
        for text, spans in zip(texts, found, strict=True):
            spans = [one for one in spans if one.detector != "tagger" or one.type != "person"
                     or text[one.start : one.end] not in outvoted]  # fmt: skip
            more = [
                Span(*match.span(), "person", names[match[0]], "name again")
                for match in _WORD.finditer(text) if match[0] in names and match[0] not in outvoted
            ] if names else []  # fmt: skip
            result.append(joined(text, disjoint(text, [spans, self._unlisted(text, more)])) if more else spans)
        return result

    def _is_name(self, word: str) -> bool:
        return (
            word[0].isupper() and word.lower() not in TITLES
            and self._tagger is not None and not self._tagger.is_common(word)
        )  # fmt: skip

    def _unlisted(self, text: str, spans: list[Span]) -> list[Span]:
        spans = outside(outside(spans, places(self.allow, text)), [one.span() for one in PLACEHOLDER.finditer(text)])
        return outside_addresses(spans, text)


# What stands before a name and belongs to it: a title, an initial.
_BEFORE_NAME = re.compile(
    r"(?<![\w.])(?:(?:Mr|Mrs|Ms|Miss|Dr|Prof|Professor|Sir|Lord|Lady|Judges?|Justice|District|Officer|Sergeant|Sgt"
    r"|Captain|Detective|Inspector|Sri|Shri|Smt|Herr|Frau|Mme|Madame|Monsieur|Don|Doña|mr|mrs|ms|miss|dr|mister|misses"
    r"|doctor|professor|M|[A-Z])\.? |[A-Z]\.){1,3}$"
)


def _entitled(text: str, spans: list[Span]) -> list[Span]:
    """Spans of persons with the title and the initials that stand before them.

    >>> _entitled("Dear Mrs A. Berg", [Span(12, 16, "person", 0.9, "tagger")])
    [Span(start=5, end=16, type='person', score=0.9, detector='tagger')]
    """
    last, result = 0, []
    for span in spans:
        if span.type == "person" and span.start > last:
            match = _BEFORE_NAME.search(text[max(last, span.start - 32) : span.start])
            if match:
                span = span._replace(start=span.start - len(match[0]))
        last = span.end
        result.append(span)
    return result


def cut(text: str, size: int = BLOCK_CHARACTERS) -> Iterable[tuple[int, str]]:
    """A text in pieces of at most ``size`` characters, cut at white space where there is some."""
    start = 0
    while len(text) - start > size:
        end = (
            max(text.rfind("\n", start + size // 2, start + size), text.rfind(" ", start + size // 2, start + size)) + 1
        )
        end = end or start + size
        yield start, text[start:end]
        start = end
    yield start, text[start:] if start else text


def _blocks(items: Sequence[Any], characters: int) -> Iterator[Sequence[Any]]:
    """Texts (or tuples that end in one) in runs of about so many characters."""
    first = size = 0
    for number, item in enumerate(items):
        size += len(item if isinstance(item, str) else item[-1])
        if size > characters:
            yield items[first : number + 1]
            first, size = number + 1, 0
    if first < len(items):
        yield items[first:]
