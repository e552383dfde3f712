"""The glyphs of a PDF page as lines of text, each with its place and its type size.

A page paints strings at places; words, lines and their order have to be found (ISO 32000-1, section 9: text). Gaps
are measured with the widths of the fonts, since justified pages paint no spaces at all.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

WORD_GAP = 0.13  # of the type size; kerning stays below, the tightest word space of a justified line above
CELL_GAP = 0.6  # of the type size: wider than the word space of a heading
WIDE_GAP = 1.8  # of the type size: another column, or another cell of a table
DEEPEST_FORM = 8

Matrix = tuple[float, float, float, float, float, float]
_IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
_PLAIN = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\xa0": " ", "\0": ""}
    | dict.fromkeys(map(chr, [*range(1, 9), *range(11, 32)]), "")
)
_LABEL = re.compile(r".*:|[\W_]*(?:[\dA-Z]{1,4}\.?)*[\W_]*")
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class Line:
    """A line of text; y grows upwards, in points."""

    text: str
    x0: float
    x1: float
    y: float
    size: float
    bold: bool = False
    mono: bool = False
    row: bool = False  # cells side by side
    parts: bool = False  # texts side by side with a gap: perhaps cells of a narrow table, no label before its text


@dataclass(frozen=True)
class Face:
    """A font: the text and the width (thousandths of the size) of each of its codes."""

    texts: list[str]
    widths: list[float]
    bold: bool = False
    mono: bool = False
    wide: Any = None  # pypdf's font where codes have several bytes

    def decode(self, code: bytes) -> tuple[str, float, int, int]:
        """Text, width, number of glyphs, and how many of them are spaces that word spacing applies to."""
        if self.wide is None:
            texts, widths = self.texts, self.widths
            return "".join([texts[c] for c in code]), sum([widths[c] for c in code]), len(code), code.count(32)
        font = self.wide
        try:
            raw = code.decode(font.encoding, "surrogatepass")
        except (UnicodeDecodeError, LookupError):
            raw = code.decode("latin-1" if font.encoding in (None, "") else "utf-16-be", "replace")
        mapped, widths_of, default = font.character_map, font.character_widths, font.character_widths["default"]
        text = "".join([str(mapped.get(c, c)) for c in raw])
        return text, sum([_number(widths_of.get(c, default)) for c in raw]), len(raw), 0


class Faces:
    """The fonts of a document, each looked at once though every page names them again."""

    def __init__(self) -> None:
        self._known: dict[Any, Face] = {}

    def of(self, resources: Any) -> dict[str, Face]:
        """The fonts by the names that a page's content uses."""
        found: dict[str, Face] = {}
        fonts = _resolved(resources.get("/Font")) if hasattr(resources, "get") else None
        for name, reference in (fonts or {}).items() if hasattr(fonts, "items") else ():
            key = getattr(reference, "idnum", None)
            face = self._known.get(key) if key is not None else None
            if face is None:
                try:
                    face = _face(_resolved(reference))
                except Exception:  # damaged fonts fail in many ways; their text may still be plain
                    face = Face([chr(c) for c in range(256)], [500.0] * 256)
                if key is not None:
                    self._known[key] = face
            found[str(name)] = face
        return found


def page_lines(page: Any, faces: Faces) -> list[Line]:
    """The lines of a page in reading order; rotated text comes after the rest."""
    painter = _Painter(faces)
    if (contents := _resolved(page.get("/Contents"))) is not None:
        painter.paint(_operations(contents, page), _inherited(page, "/Resources") or {}, _IDENTITY, 0)
    groups: dict[int, list[Line]] = {}
    for quadrant, span in painter.spans:
        groups.setdefault(quadrant, []).append(span)
    lines: list[Line] = []
    for spans in sorted(groups.values(), key=lambda spans: -sum(len(span.text) for span in spans)):
        lines += _columns(_segments(spans))
    return lines


class _Painter:
    """Runs the text operators of a content stream (Annex A) and notes the strings with their places."""

    def __init__(self, faces: Faces) -> None:
        self.faces, self.spans = faces, list[tuple[int, Line]]()
        self._seen: set[int] = set()

    def paint(self, operations: Any, resources: Any, ctm: Matrix, depth: int) -> None:
        fonts = self.faces.of(resources)
        face, size, tc, tw, tz, leading, rise = None, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0
        tm = tlm = _IDENTITY
        stack: list[Any] = []
        for operands, operator in operations:
            try:
                match operator:
                    case b"TJ" | b"Tj" | b"'" | b'"':
                        if operator == b'"':
                            tw, tc = float(operands[0]), float(operands[1])
                        if operator in (b"'", b'"'):
                            tm = tlm = _multiply((1, 0, 0, 1, 0, -leading), tlm)
                        parts = operands[0] if operator == b"TJ" else operands[-1:]
                        tm = self._show(parts, face, size, tc, tw, tz, rise, tm, ctm)
                    case b"Tf":
                        face, size = fonts.get(str(operands[0])), float(operands[1])
                    case b"Tm":
                        a, b, c, d, e, f = map(float, operands)
                        tm = tlm = (a, b, c, d, e, f)
                    case b"Td" | b"TD":
                        x, y = map(float, operands)
                        tm = tlm = _multiply((1, 0, 0, 1, x, y), tlm)
                        leading = -y if operator == b"TD" else leading
                    case b"T*":
                        tm = tlm = _multiply((1, 0, 0, 1, 0, -leading), tlm)
                    case b"BT":
                        tm = tlm = _IDENTITY
                    case b"cm":
                        a, b, c, d, e, f = map(float, operands)
                        ctm = _multiply((a, b, c, d, e, f), ctm)
                    case b"q":
                        stack.append((ctm, face, size, tc, tw, tz, leading, rise))
                    case b"Q" if stack:
                        ctm, face, size, tc, tw, tz, leading, rise = stack.pop()
                    case b"Tc":
                        tc = float(operands[0])
                    case b"Tw":
                        tw = float(operands[0])
                    case b"Tz":
                        tz = float(operands[0]) / 100
                    case b"TL":
                        leading = float(operands[0])
                    case b"Ts":
                        rise = float(operands[0])
                    case b"Do" if depth < DEEPEST_FORM:
                        self._form(_resolved(resources.get("/XObject")), str(operands[0]), resources, ctm, depth)
            except (TypeError, ValueError, IndexError, AttributeError):
                continue  # an operator with wrong operands does nothing, as viewers have it

    def _form(self, forms: Any, name: str, resources: Any, ctm: Matrix, depth: int) -> None:
        form = _resolved(forms.get(name)) if forms else None
        if form is None or form.get("/Subtype") != "/Form" or id(form) in self._seen:
            return
        matrix = tuple(map(float, form.get("/Matrix", _IDENTITY)))
        self._seen.add(id(form))  # a form that paints itself would never end
        own = _resolved(form.get("/Resources")) or resources
        self.paint(_operations(form, form), own, _multiply(matrix, ctm), depth + 1)  # type: ignore[arg-type]
        self._seen.discard(id(form))

    def _show(
        self, parts: Any, face: Face | None, size: float, tc: float, tw: float, tz: float, rise: float,
        tm: Matrix, ctm: Matrix,
    ) -> Matrix:  # fmt: skip
        if face is None:
            face = _UNKNOWN
        texts: list[str] = []
        x = gap = lead = 0.0  # in units of text space
        for part in parts:
            if isinstance(part, int | float):
                gap -= float(part) / 1000 * size * tz
                continue
            if not isinstance(part, bytes):
                continue
            text, width, glyphs, spaces = face.decode(part)
            if not texts:
                lead = x + gap
            elif gap > WORD_GAP * abs(size) * tz and not texts[-1].endswith(" ") and not text.startswith(" "):
                texts.append(" ")
            x += gap + (width / 1000 * size + glyphs * tc + spaces * tw) * tz
            gap = 0.0
            if text:
                texts.append(text)
        matrix = _multiply(tm, ctm)
        text = _SURROGATES.sub("�", "".join(texts).translate(_PLAIN))
        if text:
            a, b, c, d, e, f = matrix
            start = (a * lead + c * rise + e, b * lead + d * rise + f)
            end = (a * x + c * rise + e, b * x + d * rise + f)
            height = abs(size) * (c * c + d * d) ** 0.5
            quadrant = (0 if a >= 0 else 2) if abs(a) >= abs(b) else (1 if b > 0 else 3)
            (x0, y), (x1, _) = _TURN[quadrant](*start), _TURN[quadrant](*end)
            self.spans.append((quadrant, Line(text, x0, x1, y, round(height, 1), face.bold, face.mono)))
        return _multiply((1, 0, 0, 1, x + gap, 0), tm)


# ----------------------------------------------------------------------------------------------------------------

_TURN = (lambda x, y: (x, y), lambda x, y: (y, -x), lambda x, y: (-x, -y), lambda x, y: (-y, x))
_UNKNOWN = Face([chr(c) for c in range(256)], [500.0] * 256)


def _segments(spans: list[Line]) -> list[Line]:
    """Strings that follow each other on one baseline, joined; a wide gap begins a new one."""
    lines: list[Line] = []
    chars: list[Counter[float]] = []
    for span in spans:
        last = lines[-1] if lines else None
        size = max(span.size, last.size) if last else span.size
        if last is None or abs(span.y - last.y) > 0.45 * size or not -0.6 * size < span.x0 - last.x1 < WIDE_GAP * size:
            if span.text.strip():
                lines.append(Line(span.text.lstrip(), span.x0, span.x1, span.y, span.size, span.bold, span.mono))
                chars.append(Counter({span.size: len(span.text)}))
            continue
        if span.x0 - last.x1 > CELL_GAP * size and not _is_label(last.text):
            last.parts = True
        touching = span.x0 - last.x1 <= WORD_GAP * min(span.size, last.size)
        last.text += span.text if touching or last.text.endswith(" ") or span.text.startswith(" ") else f" {span.text}"
        chars[-1][span.size] += len(span.text.strip())
        if chars[-1][span.size] > chars[-1][last.size]:  # the line's baseline and size are those of most of its text
            last.y, last.size = span.y, span.size
        if span.text.strip():
            last.bold, last.mono = last.bold and span.bold, last.mono and span.mono
        last.x1 = max(last.x1, span.x1)
    for line in lines:
        line.text = re.sub(r"[ \t\r\n]+", " ", line.text).strip() if not line.mono else line.text.rstrip()
    return [line for line in lines if line.text]


def _columns(lines: list[Line]) -> list[Line]:
    """Lines in reading order. A page's own order is kept, unless it runs across a gutter; then columns are taken apart.

    What stands on one baseline and is no column (a number and its heading, the cells of a row) becomes one line.
    """
    pairs = [
        (left, right)
        for left, right in pairwise(lines)
        if abs(left.y - right.y) < 0.3 * left.size and right.x0 > left.x1
    ]
    prose = [(left, right) for left, right in pairs if len(left.text) > 20 and len(right.text) > 20]
    if len(prose) >= 5 and len(prose) > 0.3 * len(lines) / 2:
        gutter = sorted(right.x0 for _, right in prose)[len(prose) // 2]
        return _apart(lines, gutter - 1)
    joined: list[Line] = []
    for line in lines:
        last = joined[-1] if joined else None
        if last and abs(last.y - line.y) < 0.3 * last.size and line.x0 > last.x1 and line.x0 - last.x1 < 25 * last.size:
            if last.mono and line.mono:
                space = " " * min(round((line.x0 - last.x1) / (0.6 * last.size)), 40)
            else:  # "2.1   Title", "Name:   Anna" and "•   item" are one text
                label = _is_label(last.text)
                row = (line.x0 - last.x1 > WIDE_GAP * last.size) and not label
                space, last.row = (" | ", True) if row else (" ", last.row)
                last.parts = last.parts or not label
            last.text += space + line.text
            last.x1, last.bold, last.mono = line.x1, last.bold and line.bold, last.mono and line.mono
            last.size = max(last.size, line.size)
        else:
            joined.append(line)
    return joined


def _is_label(text: str) -> bool:
    return len(text) < 12 and _LABEL.fullmatch(text) is not None


def _apart(lines: list[Line], gutter: float) -> list[Line]:
    """Left of the gutter before right of it; a line across it ends both."""
    ordered: list[Line] = []
    left: list[Line] = []
    right: list[Line] = []
    for line in sorted(lines, key=lambda line: -line.y):
        if line.x0 < gutter < line.x1:
            ordered += [*left, *right, line]
            left, right = [], []
        else:
            (left if line.x0 < gutter else right).append(line)
    return [*ordered, *left, *right]


def _face(font: Any) -> Face:
    from pypdf.generic._font import Font

    known = Font.from_font_resource(font)
    name = known.name.rpartition("+")[2].lower()
    bold = bool(re.search("bold|black|heavy|demi", name)) or known.font_descriptor.flags & (1 << 18) != 0
    mono = known.font_descriptor.flags & 1 != 0 or bool(re.search("courier|mono|consol|cmtt|[^a-z]tt|typewriter", name))
    if isinstance(known.encoding, str):
        return Face([], [], bold, mono, wide=known)
    # The matrix of a Type 3 font, not thousandths, scales its widths.
    scale = (
        abs(float(font["/FontMatrix"][0])) * 1000 if font.get("/Subtype") == "/Type3" and "/FontMatrix" in font else 1
    )
    texts, widths = [], []
    default = _number(known.character_widths["default"])
    for code in range(256):
        character = known.encoding.get(code, chr(code))
        texts.append("".join(str(known.character_map.get(c, c)) for c in character))
        widths.append(_number(known.character_widths.get(chr(code), default)) * scale)
    return Face(texts, widths, bold, mono)


def _operations(contents: Any, owner: Any) -> Any:
    from pypdf.generic import ContentStream

    if isinstance(contents, ContentStream):
        return contents.operations
    return ContentStream(contents, getattr(owner.indirect_reference, "pdf", None), "bytes").operations


def _inherited(page: Any, key: str) -> Any:
    for _ in range(32):
        if page is None:
            return None
        if key in page:
            return _resolved(page[key])
        page = _resolved(page.get("/Parent"))
    return None


def _resolved(value: Any) -> Any:
    return value.get_object() if hasattr(value, "get_object") else value


def _number(value: Any) -> float:
    value = _resolved(value)
    return float(value) if isinstance(value, int | float) else 0.0


def _multiply(m: Matrix, n: Matrix) -> Matrix:
    return (
        m[0] * n[0] + m[1] * n[2],
        m[0] * n[1] + m[1] * n[3],
        m[2] * n[0] + m[3] * n[2],
        m[2] * n[1] + m[3] * n[3],
        m[4] * n[0] + m[5] * n[2] + n[4],
        m[4] * n[1] + m[5] * n[3] + n[5],
    )
