"""Finds private data in many texts at once, without replacing it.

Layers look at each text: the user's deny list, forms and key formats (:mod:`patterns`, :mod:`secrets`), and the
tagger. A name that was found once is then found wherever else it stands in the same text or conversation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from ownchat.clean.private.lists import compile_list, outside, places
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

    def find(self, conversations: Sequence[Sequence[str]]) -> list[list[list[Span]]]:
        """For each text of each conversation its spans, sorted and disjoint."""
        texts = [text for conversation in conversations for text in conversation]
        flat: list[list[Span]] = []
        for some in _blocks(texts, BLOCK_CHARACTERS):
            layers = zip(some, self._form(some), self._tag(some), strict=True)
            flat += [self._resolve(text, formed, tagged) for text, formed, tagged in layers]
        found, start = [], 0
        for conversation in conversations:
            spans = flat[start : start + len(conversation)]
            found.append(self._repeat(conversation, spans))
            start += len(conversation)
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

    def _tag(self, texts: Sequence[str]) -> list[list[Span]]:
        spans: list[list[Span]] = [[] for _ in texts]
        if self._tagger is None:
            return spans
        pieces = [(number, start, piece) for number, text in enumerate(texts) for start, piece in cut(text)]
        for some in _blocks(pieces, BLOCK_CHARACTERS):
            self._tag_block([piece for _, _, piece in some], [(number, start) for number, start, _ in some], spans)
        return spans

    def _tag_block(self, block: list[str], owners: list[tuple[int, int]], spans: list[list[Span]]) -> None:
        from ownchat.clean.private.tagger import LABELS

        assert self._tagger is not None
        tokens, probabilities = self._tagger.probabilities(block)
        wanted = np.array([label in self.types for label in LABELS])
        if not len(tokens) or not wanted.any():
            return
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
            start, end = start + offset, end + offset
            spans[number].append(Span(start, end, LABELS[int(best[first])], score, "tagger"))

    def _repeat(self, texts: Sequence[str], found: list[list[Span]]) -> list[list[Span]]:
        """Also the other places where a name stands that was found: a surname without its first name, say."""
        names: dict[str, float] = {}
        for text, spans in zip(texts, found, strict=True):
            for span in spans:
                if span.type == "person" and span.score >= 0.6 and self._tagger is not None:
                    for match in _WORD.finditer(text, span.start, span.end):
                        word = match[0]
                        if word[0].isupper() and word.lower() not in TITLES and not self._tagger.is_common(word):
                            names[word] = max(names.get(word, 0), span.score)
        if not names:
            return found
        result = []
        for text, spans in zip(texts, found, strict=True):
            more = [
                Span(*match.span(), "person", names[match[0]], "name again")
                for match in _WORD.finditer(text) if match[0] in names
            ]  # fmt: skip
            result.append(joined(text, disjoint(text, [spans, self._unlisted(text, more)])) if more else spans)
        return result

    def _unlisted(self, text: str, spans: list[Span]) -> list[Span]:
        return outside(outside(spans, places(self.allow, text)), places((PLACEHOLDER,), text))


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
