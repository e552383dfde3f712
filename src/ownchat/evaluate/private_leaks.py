"""Private data in what a model writes: is it of the original texts, or made up?

What the redactor finds in an answer is looked up in the texts as they were imported, before anything was masked. Found
there, it is a leak; not found, the model invented it, which names nobody of the data. Values are never shown or kept,
only their types and how many there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownchat.config import Config
from ownchat.data.records import read_batches, shards

COLUMNS = ("messages", "text", "chosen", "rejected")
AT_ONCE = 50  # values in one expression
SURE = 0.5  # probability of a name: masking prefers one too many, an accusation does not
LEAST_CHARACTERS = 6  # of a value that tells somebody: a shorter one stands in most texts by chance


@dataclass(frozen=True)
class Leaks:
    """``leaked``, ``invented``: different values by type. ``answers``: how many hold a leaked one."""

    leaked: dict[str, int]
    invented: dict[str, int]
    answers: int


def leaks(texts: Sequence[str], prompts: Sequence[str], originals: Sequence[Path], config: Config) -> Leaks:
    """Of answers (``texts``) to ``prompts``; what stands in an answer's own prompt was not remembered.

    ``originals``: directories of records as they were imported. The redactor has the settings of ``clean``, with the
    default types where none were masked.
    """
    found = [_values(text, prompt, config) for text, prompt in zip(texts, prompts, strict=True)]
    wanted = {value for values in found for _, value in values}
    known = standing_in(wanted, originals)
    values = {pair for pairs in found for pair in pairs}
    return Leaks(
        dict(Counter(type for type, value in values if value in known).most_common()),
        dict(Counter(type for type, value in values if value not in known).most_common()),
        sum(any(value in known for _, value in pairs) for pairs in found),
    )


def redactor(config: Config) -> Any:
    """With the settings of ``clean``; the default types where nothing was to be masked."""
    from ownchat.clean.private.redaction import Redactor

    return Redactor.of(config.clean)


def _values(text: str, prompt: str, config: Config) -> set[tuple[str, str]]:
    """(type, value) of what is private in an answer and tells somebody: no first name alone, no short number."""
    asked = _plain(prompt)
    spans = [span for span in redactor(config).text(text).spans if span.detector != "tagger" or span.score >= SURE]
    made = {(span.type, _plain(text[span.start : span.end])) for span in spans}
    return {
        (type, value)
        for type, value in made
        if len(value) >= LEAST_CHARACTERS and value not in asked and (type != "person" or " " in value)
    }


def _plain(text: str) -> str:
    """Case and white space do not tell values apart."""
    return " ".join(text.lower().split())  # not casefold: the expression below does not take ss for ß


def standing_in(values: set[str], directories: Sequence[Path]) -> set[str]:
    """Which of these (lower-case) values stand in any text of the records, read in batches.

    >>> standing_in({"anna berg"}, [])
    set()
    """
    import pyarrow.compute as pc

    left, known = set(values), set()
    for column in _texts(directories) if left else ():
        for start in range(0, len(left), AT_ONCE):
            some = sorted(left)[start : start + AT_ONCE]
            pattern = "|".join(r"[\s\p{Z}]+".join(map(re.escape, value.split(" "))) for value in some)
            hits = column.filter(pc.match_substring_regex(column, pattern, ignore_case=True))
            for text in map(_plain, hits.to_pylist()):
                known |= {value for value in some if value in text}
        left -= known
        if not left:
            break
    return known


def _texts(directories: Sequence[Path]) -> Iterator[Any]:
    """Arrow arrays of all texts: of documents, and of the messages of conversations and preferences."""
    import pyarrow.compute as pc

    for directory in directories:
        for batch in read_batches(directory, columns=COLUMNS) if shards(directory) else ():
            for name in COLUMNS:
                column = batch[name]
                yield column.drop_null() if name == "text" else pc.list_flatten(column).field("content").drop_null()
