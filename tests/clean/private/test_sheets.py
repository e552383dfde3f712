"""Invented court decisions, hurried chat, speech as it is written down, and mail: what is found and what is not.

The sheets are this project's own text with nobody real in it (CC0). A private place stands in braces with a letter for
its type: ``{P:Anna Berg}``. Texts of ``_a`` were looked at when the tagger was made, those of ``_b`` only counted
until its end (then a few labels were set right: titles, "QC", a name spelled out).
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from ownchat.clean.private.finder import Finder
from ownchat.clean.private.spans import DEFAULT

SHEETS = Path(__file__).parent / "sheets"
TYPES = {
    "P": "person", "A": "address", "T": "phone", "E": "email", "R": "reference", "N": "national_id",
    "B": "bank_account", "D": "date", "L": "place", "O": "organisation", "X": "date_of_birth", "C": "card",
    "W": "password", "U": "username", "S": "passport",
}  # fmt: skip
_MARKED = re.compile(r"\{([A-Z]):([^}]*)\}")


def parse(marked: str) -> tuple[str, list[tuple[int, int, str]]]:
    text, spans, last = "", [], 0
    for match in _MARKED.finditer(marked):
        text += marked[last : match.start()]
        spans.append((len(text), len(text) + len(match[2]), TYPES[match[1]]))
        text, last = text + match[2], match.end()
    return text + marked[last:], spans


def measure(name: str) -> tuple[float, float, float]:
    """Shares of the words: private ones that are masked, clean ones, and places, dates and firms, not asked for."""
    whole = (SHEETS / f"{name}.txt").read_text(encoding="utf-8").rstrip()
    is_prose = name.startswith(("court", "mail"))
    rows = [parse(one) for one in whole.split("\n\n" if is_prose else "\n")]
    texts = [text for text, _ in rows]
    together = [texts] if name.startswith("court") else [[text] for text in texts]
    found = [spans for one in Finder().find(together) for spans in one]
    masked, total = Counter(), Counter()
    for (text, gold), spans in zip(rows, found, strict=True):
        for word in re.finditer(r"\w+", text):
            types = [type for start, end, type in gold if start < word.end() and word.start() < end]
            kind = "clean" if not types else "private" if types[0] in DEFAULT else "optional"
            total[kind] += 1
            masked[kind] += any(span.start < word.end() and word.start() < span.end for span in spans)
    return tuple(masked[kind] / max(total[kind], 1) for kind in ("private", "clean", "optional"))


@pytest.mark.parametrize(("name", "recall", "vain"), [
    ("court_a", 0.9, 0.02), ("court_b", 0.9, 0.02), ("chat_a", 0.9, 0.05), ("chat_b", 0.9, 0.05),
    ("speech_a", 0.8, 0.03), ("speech_b", 0.8, 0.03), ("mail_a", 0.93, 0.04), ("mail_b", 0.9, 0.04),
])  # fmt: skip
def test_sheet(name, recall, vain):
    private, clean, optional = measure(name)
    assert private >= recall and clean <= vain and optional <= 0.2, (private, clean, optional)
