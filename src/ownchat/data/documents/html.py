"""Web pages: the main text as Markdown; navigation, menus and lists of links are cut and counted.

Parsing by libxml2, as browsers do it; questions and answers by schema.org's FAQPage.
"""

from __future__ import annotations

import codecs
import html as entities
import json
import re
from collections.abc import Callable
from itertools import chain
from typing import Any

from ownchat.config import DataConfig
from ownchat.data.documents.chapters import Block, Cuts, read_blocks
from ownchat.data.documents.html_blocks import HtmlBlocks
from ownchat.data.files import InputFile, UnreadableFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, question_answer
from ownchat.data.records import Record

LARGEST_PAGE = 100_000_000  # bytes: the tree of a page is held in memory
LEAST_TEXT = 80  # characters: what is left of a page of links is no text

_START = re.compile(
    r"\ufeff?\s*(?:<\?xml[^>]{0,200}>\s*|<!--.{0,2000}?-->\s*)*(?:<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>])",
    re.IGNORECASE | re.DOTALL,
)  # fmt: skip
_TAGS = re.compile(r"</(?:p|div|td|tr|li|a|h[1-6]|span|ul|b)>", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]+)", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"\A\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.-]+)")
_JSON_LD = re.compile(r"<script[^>]+application/ld\+json[^>]*>(.*?)</script>", re.IGNORECASE | re.DOTALL)
# XHTML closes these in one tag; HTML would take the rest of the page for their content.
_SELF_CLOSED = re.compile(r"<(script|title|style|iframe|textarea|noscript|a|div|p|span)\b([^<>]*)/>", re.IGNORECASE)


def read_html(file: InputFile, data: DataConfig) -> Reading:
    """The main text of a page as one document (several where it is long); FAQ pages give a row for each question.

    Raises :class:`~ownchat.data.files.UnreadableFile` for a page that is too large to hold.
    """
    with file.open_binary() as stream:
        raw = stream.read(LARGEST_PAGE + 1)
    if len(raw) > LARGEST_PAGE:
        raise UnreadableFile(
            f"the page is larger than {LARGEST_PAGE / 1e6:.0f} MB", where=file.name, fix="split it into several pages"
        )
    source = decode_html(raw, lambda: _read_text(file))
    cuts, pairs = Cuts(file.name), _faq(source)
    page = HtmlBlocks(source, cuts)
    blocks = page.blocks()
    if not pairs:
        pairs, blocks = _definitions(blocks, page.questions)
    else:
        blocks = _without(blocks, pairs)
    rows: list[Record | Entry] = [
        question_answer(question, answer, "", "", file=file.name, format="html", line=number)
        for number, (question, answer) in enumerate(pairs, 1)
    ]
    length = sum(len(block.text) for block in blocks if not block.level)
    if rows and length < 5 * LEAST_TEXT:
        if blocks:
            cuts.add("text around the questions cut", blocks[0].text)
        return Reading("html", f"{len(rows)} questions with their answers", chain(rows, cuts.entries()))
    if not rows and length < LEAST_TEXT and cuts:
        return Reading("html", "no main text", chain([dropped(file.name, 1, "no main text")], cuts.entries()))
    rest = read_blocks(blocks, file=file.name, format="html", understood="main text", cuts=cuts)
    if not rows:
        return rest
    return Reading("html", f"{len(rows)} questions with their answers, and main text", chain(rows, rest.rows))


def recognise_html(file: InputFile) -> float:
    """``<!doctype html`` or ``<html`` at the beginning, or a name that says so, or many tags."""
    if file.magic:
        return 0.0
    if _START.match(file.sample[:10_000]):
        return 0.8  # chat programs export pages too: their readers are surer
    tags = len(_TAGS.findall(file.sample[:20_000]))
    if file.suffix in (".html", ".htm", ".xhtml") and tags:
        return 0.6
    return 0.5 if tags >= 10 and file.sample.lstrip().startswith("<") and file.suffix != ".xml" else 0.0


def decode_html(raw: bytes, otherwise: Callable[[], str] | None = None) -> str:
    """The characters of a page: byte order mark, else valid UTF-8, else as it declares, else what ``otherwise`` says.

    >>> decode_html(b'<meta charset="iso-8859-1">caf\\xe9')
    '<meta charset="iso-8859-1">café'
    """
    marks = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
    for mark, encoding in marks:
        if raw.startswith(mark):
            return raw.decode(encoding, "replace").lstrip("\ufeff").replace("\0", "")
    if b"\x1b" not in raw:  # Japanese mail and pages of old switch alphabets with it, in plain ASCII
        try:
            return raw.decode("utf-8").replace("\0", "")  # what is valid UTF-8 is nothing else, whatever it declares
        except UnicodeDecodeError:
            pass
    declared = _CHARSET.search(raw[:8192]) or _XML_ENCODING.match(raw[:200])
    name = declared[1].decode("ascii", "replace").lower() if declared else ""
    if name in ("iso-8859-1", "latin1", "us-ascii", "ascii"):
        name = "cp1252"  # as all browsers have it
    if name not in ("", "utf-8", "utf8"):
        try:
            return raw.decode(name, "replace").replace("\0", "")
        except (LookupError, ValueError):  # no such encoding, or none of text
            pass
    return otherwise() if otherwise else raw.decode("cp1252", "replace").replace("\0", "")


def opened_tags(source: str) -> str:
    """XHTML's self-closed tags as HTML has them.

    >>> opened_tags('<title/><br/>')
    '<title></title><br/>'
    """
    return _SELF_CLOSED.sub(r"<\1\2></\1>", source)


def _read_text(file: InputFile) -> str:
    with file.open_text() as text:
        return text.read()


# ------------------------------------------------------------------------------------------ questions and answers


def _faq(source: str) -> list[tuple[str, str]]:
    """Pairs of schema.org's FAQPage and QAPage, written as JSON-LD."""
    pairs: list[tuple[str, str]] = []

    def walk(value: Any, depth: int) -> None:
        if depth > 12:
            return
        if isinstance(value, list):
            for item in value[:5000]:
                walk(item, depth + 1)
        if not isinstance(value, dict):
            return
        if value.get("@type") == "Question":
            answer = value.get("acceptedAnswer") or value.get("suggestedAnswer") or {}
            answer = answer[0] if isinstance(answer, list) and answer else answer
            text = answer.get("text") if isinstance(answer, dict) else answer
            name = value.get("name") or value.get("text")
            if isinstance(name, str) and isinstance(text, str):
                pairs.append((_plain(name), _plain(text)))
            return
        for inner in value.values():
            if isinstance(inner, dict | list):
                walk(inner, depth + 1)

    for found in _JSON_LD.findall(source):
        if "Question" in found:
            try:
                walk(json.loads(found.strip(), strict=False), 0)
            except (ValueError, RecursionError):
                continue
    return list(dict.fromkeys(pairs))


def _plain(text: str) -> str:
    text = entities.unescape(text)
    if "<" not in text:
        return text.strip()
    blocks = HtmlBlocks(text, Cuts(""), main_only=False).blocks()
    return "".join(("\n" if block.tight else "\n\n") + block.text for block in blocks).strip()


def _without(blocks: list[Block], pairs: list[tuple[str, str]]) -> list[Block]:
    """The blocks that are not in the pairs already."""
    known = {_bare(text) for pair in pairs for text in pair}
    answers = "\n".join(_bare(answer) for _, answer in pairs)
    return [
        block for block in blocks if not ((bare := _bare(block.text)) in known or (len(bare) > 20 and bare in answers))
    ]


def _definitions(blocks: list[Block], questions: list[tuple[int, int]]) -> tuple[list[tuple[str, str]], list[Block]]:
    """Definition lists whose terms are questions: their pairs, and the blocks without them."""
    if len(questions) < 3 or sum(blocks[at].text.rstrip().endswith("?") for at, _ in questions) < 0.8 * len(questions):
        return [], blocks
    pairs: list[tuple[str, str]] = []
    gone: set[int] = set()
    for start, end in questions:
        answer = "".join(
            ("\n" if block.tight else "\n\n") + block.markdown for block in blocks[start + 1 : end]
        ).strip()
        if answer and blocks[start].text.rstrip().endswith("?"):
            pairs.append((blocks[start].text, answer))
            gone.update(range(start, end))
    return pairs, [block for index, block in enumerate(blocks) if index not in gone]


def _bare(text: str) -> str:
    return re.sub(r"\W+", "", text).casefold()
