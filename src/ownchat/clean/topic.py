"""Records that are about something else than a collection, or than what its owner says it is about.

Words, not meaning. From a sample of the records two word counts are made: in the half that is most like the topic, and
in the tenth that is least like it. A word's weight is the logarithm of how many times commoner it is in the first than
in the second, and a record's score is the mean over its words. What is most and least like the topic is first
guessed, from how common a record's words are in the collection, with a description also from the words of it that a
record holds (weighted by their inverse document frequency, as in BM25; Robertson et al. 1994), then taken from the
score itself, twice.

It works where most of a collection has one topic (a company's support, one kind of exercise). Where everything is about
something else, or most is off the topic, nothing stands out and hardly anything is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ownchat.clean.batches import Cleaned, drop_rows, with_tag
from ownchat.clean.shingles import Folded, fold, part, pieces, whole, word_hashes
from ownchat.clean.signatures import sides
from ownchat.data.ledger import Entry
from ownchat.errors import DataError

TAG, RULE = "off-topic", "off-topic"
SAMPLE = 20_000  # records from which a topic is learned
FIRST_WORDS = 400  # of a record that are looked at
FEWEST_WORDS = 10  # different ones; a shorter record says too little to be judged
LEAST_SHARE = 0.05  # of the records that must hold two words of a description
_BINS = 1 << 18  # words are counted by 18 bits of their hash
_LARGEST = 3.0  # of a weight: e**3 = 20 times commoner
_ODD, _TYPICAL = 0.1, 0.5  # shares of the sample that are taken as unlike and as like the topic
_NEAR = 2.5  # usual distances within which a record counts as one of those that a description means

_ENDINGS = ("", "s", "es", "ed", "d", "ing", "ings", "er", "ers", "e", "y", "ies", "ied")
_SUFFIX = re.compile(r"(?:ings?|ies|ied|ers?|es|ed|s|e|y)$")
_PATH = re.compile(r"(?:[.~]{0,2}[/\\]|[A-Za-z]:\\).*|\S+[/\\]\S*|.*\.(?:txt|md)", re.IGNORECASE)
_COMMON_WORDS = (
    "a about all also an and any are as at be been but by can could did do does for from had has have he her his how i "
    "if in into is it its me more most my no not of on or other our out over she so some such than that the their them "
    "then there these they this through to too up us very was we were what when where which who will with would you "
    "your"
)
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True)
class Topic:
    """What :func:`learn_topic` learned: a weight for each word, and what a typical record scores."""

    weights: np.ndarray  # (2**18,) float64
    centre: float  # score of the typical record
    spread: float  # five of six typical records score at least centre - spread

    def distances(self, batch: pa.RecordBatch) -> np.ndarray:
        """How far each record is from the typical one, in ``spread``s; 0 where it says too little."""
        rows, bins = _distinct_words(batch)
        return self._distances(rows, bins, len(batch))

    def _distances(self, rows: np.ndarray, bins: np.ndarray, count: int) -> np.ndarray:
        words = np.bincount(rows, minlength=count)
        scores = np.bincount(rows, weights=self.weights[bins], minlength=count) / np.maximum(1, words)
        return np.where(words < FEWEST_WORDS, 0.0, (self.centre - scores) / self.spread)

    def save(self, path: Path) -> None:
        np.savez(path, weights=self.weights, scale=np.array([self.centre, self.spread]))

    @staticmethod
    def load(path: Path) -> Topic:
        with np.load(path) as stored:
            return Topic(stored["weights"], *stored["scale"].tolist())


def learn_topic(batches: Iterable[pa.RecordBatch], description: str = "") -> Topic:
    """What the records have in common; ``description``: what they should be about, in words that stand in them.

    Give it :data:`SAMPLE` records or so: they are held as numbers, 4 bytes for each different word of a record. Raises
    :class:`~ownchat.errors.DataError` when too few records hold two of the description's words.
    """
    parts, count = [(np.empty(0, np.int64), np.empty(0, np.int32))], 0
    for batch in batches:
        found, numbers = _distinct_words(batch)
        parts.append((found + count, numbers.astype(np.int32)))
        count += len(batch)
    rows, bins = (np.concatenate(column) for column in zip(*parts, strict=True))
    words = np.bincount(rows, minlength=count)
    judged = words >= FEWEST_WORDS
    if judged.sum() < 2 / _ODD:
        return Topic(np.zeros(_BINS), 0.0, 1.0)  # too little to learn from: nothing is far from it

    def score(weights: np.ndarray) -> np.ndarray:
        return np.bincount(rows, weights=weights[bins], minlength=count) / np.maximum(1, words)

    def weigh(like: np.ndarray, unlike: np.ndarray) -> np.ndarray:
        logs = []
        for some in (like & judged, unlike & judged):
            logs.append(np.log((np.bincount(bins[some[rows]], minlength=_BINS) + 0.5) / (some.sum() + 1)))
        return np.clip(logs[0] - logs[1], -_LARGEST, _LARGEST)

    def split(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        odd, typical = np.quantile(scores[judged], [_ODD, 1 - _TYPICAL])
        return scores >= typical, scores < odd

    meant = judged
    guess = score(np.log((np.bincount(bins, minlength=_BINS) + 1) / count))
    if description:  # what is common here counts as much as the description: one sentence holds few of a topic's words
        holding, value = _meant(rows, bins, count, description)
        meant = judged & holding
        weights = weigh(*split(_rank(guess) + _rank(value)))
    else:
        odd = split(guess)[1]
        weights = weigh(~odd, odd)
    for _ in range(2):
        weights = weigh(*split(score(weights)))
    topic = _scaled(weights, score(weights)[meant])
    if description:  # the typical record is one that the description means, or that is like those
        near = meant | (judged & (topic._distances(rows, bins, count) <= _NEAR))
        topic = _scaled(weights, score(weights)[near])
    return topic


def filter_topic(batch: pa.RecordBatch, topic: Topic | None = None, most: float = 3.0, drop: bool = True) -> Cleaned:
    """Take out (or tag) records further than ``most`` times the usual distance from the typical record."""
    if topic is None:
        return batch, []
    distances = topic.distances(batch)
    far = np.flatnonzero(distances > most).tolist()
    details = {row: f"{distances[row]:.1f} times the usual distance" for row in far}
    if drop:
        return drop_rows(batch, dict.fromkeys(far, RULE), details)
    ids = batch.column("id")
    entries = [Entry("row", ids[row].as_py(), "changed", RULE, detail=details[row]) for row in far]
    return (with_tag(batch, far, TAG), entries) if far else (batch, [])


def read_description(topic: str) -> str:
    """The description that ``clean.topic`` gives: a text, or the content of the text file that it names.

    Raises :class:`~ownchat.errors.DataError` for a file that is not there or is no text, and for a description without
    words.
    """
    path = description_file(topic)
    try:
        text = path.read_text(encoding="utf-8") if path else topic
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"not readable as text: {error}", where=topic, fix="check clean.topic") from error
    if topic and not _terms(text):
        raise DataError(
            "a description without a word that tells", where="clean.topic", fix="name what the texts are about"
        )
    return text


def description_file(topic: str) -> Path | None:
    """The file that ``clean.topic`` names, when it names one.

    Raises :class:`~ownchat.errors.DataError` for what looks like a path and leads to no file.

    >>> description_file("refunds and/or returns of shoes")
    """
    try:
        if topic and Path(topic).is_file():
            return Path(topic)
    except OSError:  # a text that is too long for a file's name
        return None
    if _PATH.fullmatch(topic):
        raise DataError(
            "no such file", where=f"clean.topic={topic}", fix="check the path; a description is words with spaces"
        )
    return None


# ---------------------------------------------------------------------------------------------------------------------


def _scaled(weights: np.ndarray, scores: np.ndarray) -> Topic:
    low, centre = np.quantile(scores, [1 / 6, 1 / 2]).tolist()
    return Topic(weights, centre, max(centre - low, 1e-6))


def _distinct_words(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """The record of each different word among the first ones of each record, and the word's number."""
    said = sides(batch)
    texts = whole(said.asked, said.answered)
    rows, bins = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start, end in pieces(texts):
        hashes, starts = word_hashes(part(texts, start, end))
        counts = np.diff(starts)
        first = np.arange(len(hashes)) - np.repeat(starts[:-1], counts) < FIRST_WORDS
        keys = np.unique(np.repeat(np.arange(end - start), counts)[first] * _BINS + _number(hashes[first]))
        rows.append(keys // _BINS + start)
        bins.append(keys % _BINS)
    return np.concatenate(rows), np.concatenate(bins)


def _number(hashes: np.ndarray) -> np.ndarray:
    return (hashes & np.uint64(_BINS - 1)).astype(np.int64)


def _terms(description: str) -> list[str]:
    """The words of a description that tell something, folded; inflections of one word once."""
    folded = _text(fold(pa.array([description])), 0)
    telling = [word for word in folded.split() if word not in _COMMON]
    return list({_stem(word): word for word in telling}.values())


def _meant(rows: np.ndarray, bins: np.ndarray, count: int, description: str) -> tuple[np.ndarray, np.ndarray]:
    """The records that hold at least two of a description's words (of many, the half with the most telling ones), and
    the inverse document frequencies of the words that each record holds, summed.
    """
    terms = _terms(description)
    value, held = np.zeros(count), np.zeros(count, np.int64)
    for term in terms:
        forms = fold(pa.array(_forms(term)))
        found = np.unique(rows[np.isin(bins, _number(word_hashes(forms)[0]))])
        held[found] += 1
        value[found] += np.log((count + 1) / (len(found) + 0.5))
    enough = held >= min(2, len(terms))
    if enough.sum() < max(10, LEAST_SHARE * count):
        raise DataError(
            f"only {int(enough.sum())} of {count} records hold two words of the description",
            where="clean.topic",
            fix="use words that stand in the records, or name a file with a few texts like those to keep",
        )
    return (enough & (value >= np.median(value)) if enough.mean() > 0.5 else enough), value


def _rank(values: np.ndarray) -> np.ndarray:
    """The place of each value among the different ones, from 0 to 1."""
    places = np.unique(values, return_inverse=True)[1].ravel()
    return places / max(1, places.max())


def _stem(word: str) -> str:
    stem = _SUFFIX.sub("", word)
    return stem if len(stem) >= 3 else word


def _forms(word: str) -> list[str]:
    """A word in the forms that English gives it: book, books, booked, booking."""
    stem = _stem(word)
    return sorted({word, *(stem + ending for ending in _ENDINGS), *(stem + stem[-1] + e for e in ("ed", "ing", "er"))})


def _text(folded: Folded, index: int) -> str:
    return folded.text(index).astype("<u4").tobytes().decode("utf-32-le")
