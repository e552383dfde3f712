"""Passages of a document, and whether a question with its answer stands on one: pure functions, no model.

What a model writes about a passage is believed only where the passage says it: the quote it gives must be there, and
the words, numbers and names of the answer too.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COVERED = 0.7  # share of an answer's longer words that must stand in the passage
QUESTION_COVERED = 0.3  # a question has words of its own
LEAST_PASSAGE = 200  # characters: less says too little to ask about
LONGEST_QUESTION = 400
LONGEST_ANSWER = 2_000

_HEADING = re.compile(r"^(#{1,6}) +(.+)$")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # Thai, Lao, Japanese, Chinese: words in pairs
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_LIST_MARK = re.compile(r"^\s*(?:\d{1,2}[.)]|[-*•])\s+", re.MULTILINE)
_SENTENCE_START = re.compile(r"(?:^|[.!?:;\n]\s*|[\"“„(\[]\s*)(?=\S)", re.MULTILINE)
_ABOUT_PASSAGE = re.compile(
    r"\b(?:the|this|that|given|provided|above|following)\s+(?:\w+\s+)?"
    r"(?:passage|text|excerpt|document|paragraph|article|context|snippet|section)\b"
    r"|\b(?:mentioned|described|listed|stated)\s+(?:above|below|here)\b"
    r"|\b(?:laut|im|in diesem|dieser|dieses)\s+(?:\w+\s+)?(?:text|abschnitt|auszug|dokument|absatz)\b"
    r"|\b(?:i|enligt)\s+(?:den här\s+)?(?:texten|stycket|avsnittet|dokumentet)\b"
    r"|\b(?:selon|dans)\s+(?:le|ce)\s+(?:texte|passage|document|extrait)\b"
    r"|\b(?:según|en)\s+(?:el|este)\s+(?:texto|pasaje|documento|fragmento)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Passage:
    """A stretch of a document; ``heading`` is its path of headings, ``offset`` its place in characters."""

    text: str
    heading: str
    offset: int


@dataclass(frozen=True)
class Candidate:
    """What a model wrote: a question, its answer, and the words of the passage that the answer rests on."""

    question: str
    answer: str
    quote: str


def passages(text: str, max_chars: int = 2_400) -> list[Passage]:
    """A document in passages of up to ``max_chars``, cut before headings and between paragraphs.

    A paragraph beyond ``max_chars`` is cut between sentences or words. Stretches under 200 characters join their
    neighbour (which may make it as much longer), or are left out where there is none.

    >>> text = "# Care\\n\\n" + "Water it daily. " * 20 + "\\n\\n## Sun\\n\\n" + "It needs some. " * 20
    >>> [passage.heading for passage in passages(text)]
    ['Care', 'Care > Sun']
    """
    path: dict[int, str] = {}
    found: list[Passage] = []
    held, start, heading = "", 0, ""

    def close() -> None:
        nonlocal held
        if len(held.strip()) >= LEAST_PASSAGE:
            found.append(Passage(held.strip(), heading, start))
        elif held.strip() and found and heading.startswith(found[-1].heading):
            last = found.pop()
            found.append(Passage(f"{last.text}\n\n{held.strip()}", last.heading, last.offset))
        held = ""

    for offset, paragraph in _paragraphs(text, max_chars):
        if title := _HEADING.fullmatch(paragraph.strip()):
            if len(held.strip()) >= LEAST_PASSAGE:
                close()
            level = len(title[1])
            path = {depth: name for depth, name in path.items() if depth < level} | {level: title[2].strip()}
        elif len(held) + len(paragraph) > max_chars and len(held.strip()) >= LEAST_PASSAGE:
            close()
        if not held:
            start, heading = offset, " > ".join(path[level] for level in sorted(path))
        held += paragraph
    close()
    return found


def parse(reply: str) -> list[Candidate]:
    """The questions in a model's reply: a JSON list, also inside prose or a code fence, also when it breaks off.

    >>> parse('Sure! [{"question": "Why?", "answer": "So.", "quote": "so"}, {"question": "Wh')
    [Candidate(question='Why?', answer='So.', quote='so')]
    """
    found: list[Candidate] = []
    decoder = json.JSONDecoder(strict=False)
    place = 0
    while (place := reply.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(reply, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        found += _candidates(value)
        if len(found) > 1000:
            break
    return found


def grounded(candidate: Candidate, passage: str) -> str:
    """Why a candidate does not stand on its passage; empty: it does.

    >>> passage = "The pump stops at 3.5 bar. Mr Berg resets it with the red key."
    >>> grounded(Candidate("When does the pump stop?", "At 3.5 bar.", "The pump stops at 3.5 bar."), passage)
    ''
    >>> grounded(Candidate("When does the pump stop?", "At 4 bar.", "The pump stops at 3.5 bar."), passage)
    'number not in passage: 4'
    """
    question, answer = candidate.question.strip(), candidate.answer.strip()
    if problem := _form(question, answer, passage):
        return problem
    place = normal(passage)
    quote = normal(candidate.quote).strip(" .…\"'")
    if not quote or quote not in place:
        return "quote not in passage"
    if len(quote) < 10 and normal(answer).strip(" .") != quote:
        return "quote too short"
    words = set(_words(place))
    known = words | {word[:letters] for word in words for letters in (4, 5) if len(word) >= letters}
    numbers = {number for found in _NUMBER.findall(place) for number in _forms(found)}
    for text in (answer, question):
        for number in _NUMBER.findall(_LIST_MARK.sub("", text)):
            if _forms(number).isdisjoint(numbers):
                return f"number not in passage: {number}"
    for name in names(answer):
        plain = normal(name).removesuffix("'s")
        if not (plain in known or (len(plain) > 6 and _stem(plain) in known)):
            return f"name not in passage: {name}"
    if _covered(answer, known) < COVERED:
        return "answer not covered by the passage"
    if _covered(question, known) < QUESTION_COVERED:
        return "question not about the passage"
    return ""


def names(text: str) -> list[str]:
    """Words that begin with a capital inside a sentence.

    >>> names("The key is with Ms Berg. Ask her at IKEA.")
    ['Ms', 'Berg', 'IKEA']
    """
    starts = {match.end() for match in _SENTENCE_START.finditer(text)}
    found = (match for match in _WORD.finditer(text) if match.start() not in starts)
    return [match[0] for match in found if match[0][0].isupper() and len(match[0]) > 1]


def normal(text: str) -> str:
    """Text as it is compared: case, white space, quotes, dashes and ligatures made equal."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.translate(_EQUAL).split())


# ----------------------------------------------------------------------------------------------------------------

_EQUAL = str.maketrans({**dict.fromkeys("‘’‚′`´", "'"), **dict.fromkeys("“”„«»″", '"'), **dict.fromkeys("–—‐‑−", "-"),
                        "*": "", "\xad": ""})  # fmt: skip


def _form(question: str, answer: str, passage: str) -> str:
    """What is wrong with the form of a question or answer, whatever they say."""
    if not question or not answer:
        return "question or answer missing"
    if len(question) + 4 * len(_UNSPACED.findall(question)) < 8 or len(question) > LONGEST_QUESTION:
        return "question too short or too long"
    if len(answer) > LONGEST_ANSWER or len(answer) > max(len(passage), 200):
        return "answer too long"
    if _ABOUT_PASSAGE.search(question) or _ABOUT_PASSAGE.search(answer):
        return "speaks of the passage"
    plain = normal(question).rstrip("?.! ")
    if plain == normal(answer).rstrip("?.! "):
        return "question is the answer"
    if len(plain) > 30 and "?" not in question and plain in normal(passage):
        return "question is a copy of the passage"
    return ""


def _candidates(value: Any) -> Iterator[Candidate]:
    if isinstance(value, dict):
        keys = {str(key).lower(): key for key in value}
        parts = [value.get(keys.get(name, ""), "") for name in ("question", "answer", "quote")]
        if "question" in keys or "answer" in keys:
            texts = [part if isinstance(part, str) else "" for part in parts]
            yield Candidate(*texts)
        else:
            for inner in value.values():
                if isinstance(inner, list | dict):
                    yield from _candidates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _candidates(inner)


def _paragraphs(text: str, max_chars: int) -> Iterator[tuple[int, str]]:
    """Paragraphs and heading lines with their offsets; the pieces add up to the text."""
    for match in re.finditer(r"#{1,6} [^\n]*\n+|(?:(?!\n#{1,6} )[\s\S])+?(?:\n\s*\n+|\n(?=#{1,6} )|\Z)", text):
        piece, offset = match[0], match.start()
        while len(piece) > max_chars:
            cut = max(
                piece.rfind(mark, max_chars // 3, max_chars) + len(mark) for mark in ("\n", ". ", "? ", "! ", "。")
            )
            if cut < max_chars // 3:
                cut = max(piece.rfind(" ", max_chars // 3, max_chars) + 1, 0) or max_chars
            yield offset, piece[:cut]
            piece, offset = piece[cut:], offset + cut
        if piece:
            yield offset, piece


def _words(text: str) -> Iterator[str]:
    for word in _WORD.findall(text):
        if _UNSPACED.search(word):
            yield from (word[at : at + 2] for at in range(max(len(word) - 1, 1)))
        else:
            yield word
            if "'" in word:
                yield word.partition("'")[0]


def _covered(text: str, known: set[str]) -> float:
    """Share of the longer words of ``text`` that are known; short ones are mostly grammar."""
    words = [word for word in _words(normal(text)) if len(word) >= 4 or _UNSPACED.search(word)]
    words = words or list(_words(normal(text)))
    return sum(word in known or _stem(word) in known for word in words) / len(words) if words else 1.0


def _stem(word: str) -> str:
    """The beginning that the forms of a word share: "stops" and "stop", "delivered" and "delivery"."""
    return word[: 4 if len(word) <= 6 else 5]


def _forms(number: str) -> set[str]:
    """A number as it is written, and without its separators ("1,000" and "1000")."""
    plain = number.strip(".,:")
    return {plain, re.sub(r"[.,](?=\d{3}(?:\D|$))", "", plain)}
