"""Reviews with opinions marked in them, and one-line pros and cons.

- Customer Review Data (Hu and Liu 2004): ``[t]`` begins a review with its title; each line of it is a sentence, before
  it the features spoken of with the opinion's strength: ``picture quality[+3], use[-1]##sentence``. What stands in
  lines of asterisks at the top is about the file.
- Pros and cons (Ganapathibhotla and Liu 2008): ``<Pros>Easy to use, economical!</Pros>`` on each line.

https://www.cs.uic.edu/~liub/FBS/sentiment-analysis.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ownchat.config import DataConfig
from ownchat.data.datasets.reviews import Rated
from ownchat.data.files import InputFile
from ownchat.data.ledger import Entry
from ownchat.data.reading import Reading, dropped, question_answer, unreadable
from ownchat.data.records import Record

_MARKED = re.compile(r"^[^#\n]*\[[+-]\d\][^#\n]*##", re.MULTILINE)
_SENTENCE = re.compile(r"^(?:[^#\n]*##|\[t\])", re.MULTILINE)
_OPINION = re.compile(r"\[([+-])(\d?)\]")
_PRODUCT = re.compile(r"product name:\s*(.+?)\s*\*?$", re.IGNORECASE | re.MULTILINE)
_LINE = re.compile(r"^\s*<(Pros|Cons)>(.*?)</\1>\s*$", re.IGNORECASE)
_PRODUCT_IN_NAME = re.compile(r"[_\s]+")
_REQUESTS = {
    "pros": "Name what is good about a product, in a few words.",
    "cons": "Name what is bad about a product, in a few words.",
}


def recognise_annotated(file: InputFile) -> float:
    """How surely a file holds sentences with marked opinions."""
    if file.magic or "##" not in file.sample:
        return 0.0
    lines = sum(bool(line.strip()) and not line.startswith("*") for line in file.sample.split("\n"))
    if len(_SENTENCE.findall(file.sample)) < 0.5 * lines:
        return 0.0
    return 0.95 if len(_MARKED.findall(file.sample)) >= 3 else 0.0


def read_annotated(file: InputFile, data: DataConfig) -> Reading:
    """Each review without its annotations; the rating is the mean of its opinions, from -3 to 3."""
    match = _PRODUCT.search(file.sample[:4_000])
    stem = file.name.rpartition("/")[2].rpartition(".")[0]
    product = match[1] if match else _PRODUCT_IN_NAME.sub(" ", stem).strip()
    rated = Rated("text", "rating", "title", "product", "product", None, -3.0, 3.0, data.reviews == "preferences")

    def records() -> Iterator[Record | Entry]:
        for review in _reviews(file):
            if review.odd:
                yield unreadable(file.name, review.line, "not of the file's form", review.odd)
                continue
            opinions = review.opinions
            values = {
                "text": "\n".join(review.sentences),
                "title": review.title,
                "product": product,
                "rating": str(round(sum(opinions) / len(opinions), 2)) if opinions else "",
            }
            if not review.sentences:
                yield dropped(file.name, review.line, "empty")
            else:
                yield from rated.rows(values, file=file.name, format="annotated reviews", line=review.line)
        yield from rated.rest()

    made = "preferences" if rated.pairing else "pairs"
    understood = f"reviews of {product} with marked opinions, as {made}: rating = mean of their strengths"
    return Reading("annotated reviews", understood, records())


def recognise_pros_cons(file: InputFile) -> float:
    """How surely a file is one-line pros or cons."""
    if file.magic or "</" not in file.sample[:20_000]:
        return 0.0
    lines = [line for line in file.sample[:20_000].split("\n")[:-1] if line.strip()]
    found = sum(bool(_LINE.match(line)) for line in lines)
    return 0.95 if found >= 3 and found >= 0.8 * len(lines) else 0.0


def read_pros_cons(file: InputFile, data: DataConfig) -> Reading:
    """Each line an instruction pair, or with ``data.reviews: preferences`` a judged answer."""
    pairing = data.reviews == "preferences"

    def records() -> Iterator[Record | Entry]:
        for number, line in file.lines():
            match = _LINE.match(line)
            if not line.strip():
                continue
            if match is None:
                yield unreadable(file.name, number, "not of the file's form", "no <Pros> or <Cons> in this line")
                continue
            kind = match[1].lower()
            made = question_answer(
                _REQUESTS[kind], match[2].strip(), "", "", file=file.name, format="pros and cons", line=number
            )
            if not isinstance(made, Entry):
                made["rating"] = 1.0 if kind == "pros" else 0.0
            yield made

    note = ["one-line pros and cons have no counterpart: they are pairs"] if pairing else []
    return Reading("pros and cons", "one line each: pairs", records(), notes=note)


# ----------------------------------------------------------------------------------------------------------------


@dataclass
class _Review:
    line: int
    title: str = ""
    sentences: list[str] = field(default_factory=list)
    opinions: list[int] = field(default_factory=list)
    odd: str = ""  # why this line belongs to no review


def _reviews(file: InputFile) -> Iterator[_Review]:
    held: _Review | None = None
    begun = False
    for number, line in file.lines():
        text = line.strip()
        if text.startswith("[t]"):
            if held:
                yield held
            held, begun = _Review(number, text[3:].strip()), True
        elif "##" in text:
            begun = True
            held = held or _Review(number)
            marks, _, sentence = text.partition("##")
            held.opinions += [int(sign + (strength or "1")) for sign, strength in _OPINION.findall(marks)]
            if sentence.strip():
                held.sentences.append(sentence.strip())
        elif text and begun and held:
            held.sentences.append(text)  # a sentence that nobody marked
        elif text and not text.startswith("*"):
            yield _Review(number, odd="before the first review")
    if held:
        yield held
