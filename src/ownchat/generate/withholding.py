"""An answer on its way out: what of it may go now, what waits, what is withheld. See :mod:`ownchat.generate.policy`.

Text is held back to the end of its sentence (at most about :data:`LONGEST` characters) and, where values or words can
cross that border, for :data:`AHEAD` more. What is decided depends on the text alone and never on how it was cut into
pieces on its way.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal

from ownchat.config import CleanConfig
from ownchat.generate.engine import Delta

if TYPE_CHECKING:
    from ownchat.clean.private.lists import Expressions

LONGEST = 300  # characters of a sentence; a longer one is cut at white space
AHEAD = 80  # characters after a sentence that are seen before it goes out: a number or a name may cross the border
BEFORE = 200  # characters before it that are looked at again: a telling word stands before its number

# The end of a sentence, closing marks included, is sure once white space follows it.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s|\n|[。！？]")
_SPACE = re.compile(r"\s|[、，；：]")
_BORDER = re.compile(r"\s|[、，；：。！？]")
# An answer that is cut may end inside a value: words with a digit or a sign of an address or key, to the end.
_UNFINISHED = re.compile(r"(?:(?<!\S)(?=\S{0,200}(?:[\d@:/\\_+=#-]|\.\w))\S+\s*)+$|(?<!\S)[!-~]{25,}$")
_WORD = re.compile(r"[^\W\d_]{3,40}")


@dataclass(frozen=True)
class Watch:
    """What is looked for; ``clean``: what is private; ``ahead``: characters after a sentence that are seen before it
    goes out."""

    private: bool
    toxicity: bool
    denied: Expressions | None
    clean: CleanConfig = field(default_factory=CleanConfig)
    ahead: int = 0

    @classmethod
    def of(cls, private: bool, toxicity: bool, deny: Iterable[str], clean: CleanConfig) -> Watch:
        """``deny``: words and ``/expressions/``; raises :class:`~ownchat.errors.ConfigError` for a broken one."""
        deny, denied = tuple(deny), None
        if deny:
            from ownchat.clean.private.lists import compile_list

            denied = compile_list(deny, "generate.policy.deny")
        if private:
            from ownchat.clean.private.redaction import Redactor

            Redactor.of(clean)  # what is wrong with the settings is told before there is an answer
        entries = [*deny, *(clean.private_deny if private else ())]
        longest = max((len(entry) for entry in entries if not entry.startswith("/")), default=0)
        return cls(private, toxicity, denied, clean, max(AHEAD, longest) if private or deny else 0)


class Answer:
    """One answer on its way: what came of it, and how far it has gone out. Positions are code points of what came."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._text, self._out = "", 0
        self._waiting: deque[tuple[int, int, Delta]] = deque()  # start and end of its text, and what has not gone out
        self._withheld: list[tuple[int, int]] = []
        self._open: int | None = None  # start of a value that reached the end of what was seen
        self._names: set[str] = set()
        self._cut: int | None = None  # where the answer may have ended inside a value
        self.shown = False  # whether any of it went out
        self.held_back: Literal["deny", "toxicity"] | None = None
        self.masked = 0  # private values so far
        if self._watch.private:
            from ownchat.clean.private.redaction import Redactor

            self._redactor = Redactor.of(watch.clean)

    def add(self, delta: Delta) -> None:
        """What came."""
        start = len(self._text)
        self._text += delta.text
        self._waiting.append((start, len(self._text), delta))

    def released(self, finish_reason: str | None, *, stopped: bool = False) -> str:
        """What may go out now of all that came; ``held_back`` is set where the answer ends here. ``stopped``: a stop
        text ended it."""
        finished = finish_reason is not None
        if finished and (stopped or finish_reason != "stop") and self._watch.private:
            self._find_cut()
        pieces = []
        while self.held_back is None and (segment := self._next_segment(finished)) is not None:
            pieces.append(self._checked(*segment))
        text = "".join(pieces)
        self.shown = self.shown or bool(text)
        return text

    def delta(self, text: str, last: Delta, *, ended: bool = False) -> Delta:
        """``text`` with the ids and log-probabilities of what went out.

        An engine may hold back the text of a token (half a character, what may become a stop text): it comes with a
        later delta. So a delta's tokens reach at most to the end of the next text, and wait for that.
        """
        ended = ended or last.finish_reason is not None
        ids: list[int] = []
        logprobs: list[float] = []
        top: list[tuple[tuple[int, float], ...]] = []
        while self._waiting:
            start, end, delta = self._waiting[0]
            later = (stop for begin, stop, _ in islice(self._waiting, 1, None) if stop > begin)
            reach = next(later, None)
            if not ended and (reach is None or reach > self._out):
                break
            reach = end if reach is None else reach
            self._waiting.popleft()
            if reach <= self._out and not any(
                start < stop and max(reach, start + 1) > begin for begin, stop in self._withheld
            ):
                ids += delta.ids
                logprobs += delta.logprobs
                top += delta.top
        return Delta(text, tuple(ids), tuple(logprobs), last.finish_reason, last.usage, tuple(top))

    # --------------------------------------------------------------------------------------------- sentences

    def _next_segment(self, finished: bool) -> tuple[int, int] | None:
        """The end of the next sentence and of what is looked at with it; None until both are sure."""
        text, ahead = self._text, self._watch.ahead
        if self._out >= len(text):
            return None
        end = self._sentence_end()
        if end is None and not finished:
            return None
        if end is None or end == len(text) or not ahead:
            end = len(text) if end is None else end
            return (end, end) if finished or not ahead else None
        space = _BORDER.search(text, end + ahead)  # half a word is judged otherwise than a whole one
        if space is None and not finished:
            return None
        return end, len(text) if space is None else space.start()

    def _sentence_end(self) -> int | None:
        text, start = self._text, self._out
        found = _END.search(text, start)
        if found is not None and found.end() <= start + LONGEST:
            return found.end()
        if len(text) < start + LONGEST:
            return None
        spaces = [match.end() for match in _SPACE.finditer(text, start, start + LONGEST)]
        if spaces:
            return spaces[-1]
        beyond = _SPACE.search(text, start + LONGEST)  # no white space in it: a value has no border there
        return None if beyond is None else beyond.end()

    def _checked(self, end: int, seen: int) -> str:
        """The text from where the answer stands to ``end``, masked; ``seen`` is the end of what may be looked at."""
        start = self._out
        first = max(0, start - BEFORE)
        while first > 0 and not self._text[first - 1].isspace():
            first -= 1
        if self._watch.denied is not None:
            from ownchat.clean.private.lists import places

            found = places(self._watch.denied, self._text[first:seen])
            if any(low + first < end and high + first > start for low, high in found):
                return self._end("deny")
        if self._watch.toxicity:
            import pyarrow as pa

            from ownchat.clean.toxicity import is_toxic

            if is_toxic(pa.array([self._text[first:end]]))[0]:
                return self._end("toxicity")
        if not self._watch.private:
            self._out = end
            return self._text[start:end]
        return self._masked(first if self._open is None else min(first, self._open), end, seen)

    def _end(self, kind: Literal["deny", "toxicity"]) -> str:
        self.held_back = kind
        self._withheld.append((self._out, len(self._text) + 1))
        return ""

    # ------------------------------------------------------------------------------------------ private data

    def _masked(self, first: int, end: int, seen: int) -> str:
        """A value that crosses the border goes out as one placeholder; nothing of it follows."""
        pieces, position = [], self._out
        before = self._withheld[-1] if self._withheld else (-1, -1)
        self._open = None
        for low, high, type in self._values(first, seen):
            if high <= self._out or low >= max(end, position):
                continue
            pieces.append(self._plain(position, low))
            if low < before[1]:  # more became known of a value that is masked already
                low = min(low, before[0])
            else:
                pieces.append(self._redactor.placeholder(type, self._text[low:high]))
                self.masked += 1
            self._withheld.append((low, high))
            position = max(position, high)
            if high >= seen:
                self._open = low
        pieces.append(self._plain(position, end))
        self._out = max(position, end)
        return "".join(pieces)

    def _plain(self, start: int, end: int) -> str:
        return self._text[start : end if self._cut is None else min(end, self._cut)]

    def _values(self, first: int, seen: int) -> list[tuple[int, int, str]]:
        """Private values from ``first`` to ``seen``, and the names again that were found before."""
        from ownchat.clean.private.finder import TITLES
        from ownchat.clean.private.tagger import default_tagger

        window = self._text[first:seen]
        self._redactor.replace([window], [[]])  # numbers of placeholders that the model wrote itself are taken
        is_whole = len(window) == len(self._text)  # then a few words are an answer: a label as a rule, and nobody
        spans = self._redactor.finder.find([[window]], [[is_whole]])[0][0]
        found = [(span.start, span.end, span.type) for span in spans]
        for low, high, type in found if "person" in {span.type for span in spans} else ():
            for word in _WORD.findall(window[low:high]) if type == "person" else ():
                if word[0].isupper() and word.lower() not in TITLES and not default_tagger().is_common(word):
                    self._names.add(word)
        for match in _WORD.finditer(window) if self._names else ():
            if match[0] in self._names and not any(
                low < match.end() and high > match.start() for low, high, _ in found
            ):
                found.append((*match.span(), "person"))
        return sorted((low + first, high + first, type) for low, high, type in found)

    def _find_cut(self) -> None:
        """Where the beginning of a value may stand at the end: nobody knows what would follow."""
        start = max(0, len(self._text) - AHEAD)
        while start > 0 and not _BORDER.match(self._text[start - 1]):
            start -= 1
        found = _UNFINISHED.search(self._text[start:])  # a slice: no white space need stand before it
        if found is not None:
            self._cut = start + found.start()
            self._withheld.append((self._cut, len(self._text) + 1))
