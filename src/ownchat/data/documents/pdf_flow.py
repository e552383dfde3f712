"""Lines of a PDF to headings and paragraphs: joined over lines and pages, words parted at line ends made whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ownchat.data.documents.chapters import Block, Cuts
from ownchat.data.documents.pdf_layout import Line

ROMAN = "[ivxlcdm]{1,7}"

_HEADING_SIZES = ((1.7, 1), (1.35, 2), (1.13, 3))  # times the size of the running text -> level
_LEADERS = re.compile(rf"(?:\s?\.){{4,}}\s*(?:\d{{1,4}}|{ROMAN})?$|(?:\s\.){{3,}}\s*\d{{1,4}}$", re.IGNORECASE)
_PAGE_END = re.compile(rf"(?:^|\s)(?:\d{{1,4}}|{ROMAN})$")
_BULLET = re.compile(r"(?:[•◦▪▸●○■–—*·‣⁃∙\uf0b7\uf0a7\uf076]|-|o(?=\s)|\(?[0-9a-z]{1,2}[.)]|\[\d+\])(?:\s|$)")
_SIGN = re.compile(r"[•◦▪▸●○■·‣⁃∙\uf0b7\uf0a7\uf076]\s*")
_ENDS = tuple('.!?:;。！？…"”»)')
_HYPHEN = re.compile(r"[^\W\d_][-\u2010]$")


class Flow:
    """Lines to blocks: headings by bookmark or size, paragraphs joined over lines and pages."""

    def __init__(self, outline: dict[str, int], cuts: Cuts) -> None:
        self.outline, self.cuts = outline, cuts
        self.body = self.leading = 0.0
        self.words: set[str] = set()  # with a hyphen inside
        self._open: Block | None = None  # the last paragraph of a page, which the next may continue
        self._mono: list[str] = []
        self._left = 0.0  # of the first of them
        self._last_bullet = False

    def measure(self, pages: Sequence[Sequence[Line]]) -> None:
        """The size and the leading of the running text: those of most characters."""
        sizes, leadings = Counter[float](), Counter[float]()
        for lines in pages:
            for line in lines:
                sizes[round(line.size * 2) / 2] += len(line.text)
            for above, below in pairwise(lines):
                if 0 < above.y - below.y < 3 * above.size and above.size == below.size:
                    leadings[round((above.y - below.y) * 2) / 2] += 1
            if len(self.words) < 50_000:
                self.words.update(
                    word.casefold() for line in lines for word in re.findall(r"[^\W\d_]+-[^\W\d_]+", line.text)
                )
        if sizes:
            self.body = sizes.most_common(1)[0][0]
        if leadings:
            self.leading = leadings.most_common(1)[0][0]

    def page(self, lines: list[Line], number: int) -> Iterator[Block]:
        """The blocks that are complete after this page."""
        contents = 3 * sum(_LEADERS.search(line.text) is not None for line in lines) > len(lines)
        right = sorted((line.x1 for line in lines), reverse=True)[len(lines) // 10 :][:1] or [0.0]
        above: Line | None = None
        index = 0
        while index < len(lines):
            line = lines[index]
            if _LEADERS.search(line.text) or (contents and (_PAGE_END.search(line.text) or self._depth([line]))):
                self.cuts.add("table of contents line cut", line.text)
                index, above = index + 1, line
                continue
            level, used = self._heading(lines, index)
            if level:
                yield from self.rest()
                title = self._joined([part.text for part in lines[index : index + used]])
                yield Block(title, number, level)
                index, above = index + used, lines[index + used - 1]
                continue
            if line.mono:
                if not self._mono:
                    yield from self.rest()
                    self._left = line.x0
                    self._open = Block("", number)
                indent = " " * max(round((line.x0 - self._left) / (0.6 * max(line.size, 1))), 0)
                self._mono.append(indent[:60] + line.text)
            elif self._continues(above, line, right[0]):
                assert self._open is not None
                self._open.text = self._joined([self._open.text, line.text])
            else:
                yield from self.rest()
                bullet = bool(_BULLET.match(line.text))
                tight = above is not None and ((bullet and self._last_bullet) or (line.row and above.row))
                self._open = Block(_SIGN.sub("- ", line.text, count=1) if bullet else line.text, number, tight=tight)
                self._last_bullet = bullet
            index, above = index + 1, line

    def rest(self) -> Iterator[Block]:
        """What is still open."""
        block, self._open = self._open, None
        if self._mono:
            assert block is not None
            block.text, self._mono = "```\n" + "\n".join(self._mono) + "\n```", []
        if block is not None and block.text.strip():
            yield block

    def _heading(self, lines: list[Line], index: int) -> tuple[int, int]:
        """The level of the heading that begins here, and how many lines it takes; 0: it is none."""
        line = lines[index]
        alike = [line]
        for below in lines[index + 1 : index + 4]:
            if abs(below.size - line.size) > 0.3 or below.bold != line.bold or alike[-1].y - below.y > 1.6 * line.size:
                break
            if alike[-1].y - below.y < -2:
                break
            alike.append(below)
        for used in range(min(len(alike), 3), 0, -1):
            if self.outline and (depth := self._depth(alike[:used])) and (line.bold or line.size > self.body):
                return depth, used
        if not any(map(str.isalpha, line.text)) or not self.body or line.mono:
            return 0, 0
        ratio = line.size / self.body
        level = next((level for size, level in _HEADING_SIZES if ratio >= size), 0)
        text = " ".join(part.text for part in alike)
        if level and len(alike) <= 3 and len(text) <= 200:
            return level, len(alike)
        gap = lines[index - 1].y - line.y if index else 99.0
        alone = len(alike) == 1 and len(line.text) <= 100 and (gap > 1.25 * self.leading or gap < 0)
        if line.bold and ratio > 0.95 and alone and not line.parts and not line.text.endswith((".", ",", ";", ":")):
            return 4, 1
        return 0, 0

    def _depth(self, lines: list[Line]) -> int:
        text = squeezed("".join(line.text for line in lines))
        bare = squeezed(re.sub(r"^\s*(?:(?:chapter|kapitel|appendix|part)\s+)?[\dA-Z]+(?:\.\d+)*\.?\s+", "",
                                " ".join(line.text for line in lines), flags=re.IGNORECASE))  # fmt: skip
        return self.outline.get(text, 0) or self.outline.get(bare, 0)

    def _continues(self, above: Line | None, line: Line, right: float) -> bool:
        """Whether a line goes on with the paragraph that is open."""
        if self._open is None or self._mono or line.row or _BULLET.match(line.text):
            return False
        text = self._open.text
        if above is None:  # the first line of a page
            return not text.endswith(_ENDS) and (line.text[:1].islower() or _HYPHEN.search(text) is not None)
        gap = above.y - line.y
        if gap < -2:  # the next column
            return not text.endswith(_ENDS) and not line.text[:1].isupper()
        if abs(above.size - line.size) > 1.2:
            return False
        if gap > 1.35 * max(self.leading, line.size):
            return False
        if above.parts and above.bold and not line.bold:  # the header of a table
            return False
        if above.row:
            return line.x0 > above.x0 + 2 * line.size  # a later cell that takes several lines
        indented = line.x0 > above.x0 + 0.8 * line.size and not _BULLET.match(text[-200:])
        short = above.x1 < right - 0.25 * (right - above.x0)
        if indented and text.endswith(_ENDS):
            return False
        return not (short and text.endswith(_ENDS))

    def _joined(self, parts: list[str]) -> str:
        """Lines to one text; a word that was parted at a line's end is whole again."""
        text = parts[0].replace("\xad", "") if not parts[0].endswith("\xad") else parts[0]
        for part in parts[1:]:
            if text.endswith("\xad"):
                text = text[:-1] + part
            elif _HYPHEN.search(text) and part[:1].islower():
                before, after = re.findall(r"[^\W\d_]+", text)[-1], re.match(r"[^\W\d_]*", part)
                whole = f"{before}-{after[0] if after else ''}".casefold()
                text = text + part if whole in self.words else text[:-1] + part
            elif text.endswith(("-", "/")) and not text.endswith((" -", " /")):
                text += part
            else:
                text = f"{text} {part}"
        return text


def squeezed(text: str) -> str:
    """Letters and digits only, case folded.

    >>> squeezed("1.2 Setting up")
    '12settingup'
    """
    return re.sub(r"\W+", "", text).casefold()
