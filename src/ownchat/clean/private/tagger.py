"""A linear-chain conditional random field over hashed features: which tokens are private, and of what type.

Lafferty et al., 2001, with labels without begin and inside, and a forward-backward pass over many sequences at once.
A token is private when the probabilities of all wanted types together reach the threshold; its type is the likeliest.
The weights are one byte each in ``tagger.npz``, made by ``recipes/train_tagger.py``; ``tagger.md`` is its card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np

from ownchat.clean.private.features import (
    AFTER,
    BEFORE,
    GROUPS,
    NUM_BUCKETS,
    SHIFTS,
    Lexicon,
    Tokens,
    Words,
    joint_buckets,
    pad_sequences,
)  # fmt: skip

FILE = Path(__file__).with_name("tagger.npz")
LABELS = (
    "O", "person", "address", "phone", "email", "username", "card", "bank_account", "national_id", "passport",
    "driving_licence", "tax_id", "password", "reference", "organisation", "place", "date",
)  # fmt: skip
MOST_WORDS = 100_000  # words that are remembered between texts
_TABLE = Lock()  # the table of words grows as texts are read, and answers are read in many threads


@dataclass(frozen=True)
class Model:
    """Weights of the field. ``rows[index[bucket]]`` are those of a feature; row 0 is zero."""

    index: np.ndarray  # (NUM_BUCKETS,) int32
    rows: np.ndarray  # (n, labels) float32
    transitions: np.ndarray  # (labels, labels) float32: from row to column
    lexicon: Lexicon


def load_model(path: Path = FILE) -> Model:
    """The model that ``recipes/train_tagger.py`` wrote at ``path``."""
    with np.load(path, allow_pickle=False) as file:
        index = np.zeros(NUM_BUCKETS, np.int32)
        buckets = np.cumsum(file["bucket_steps"].astype(np.int64))
        index[buckets] = np.arange(1, len(buckets) + 1)
        rows = np.zeros((len(buckets) + 1, len(LABELS)), np.float32)
        rows[1:] = file["rows"].astype(np.float32).reshape(len(LABELS), -1).T * file["scale"]
        lexicon = Lexicon(np.cumsum(file["lexicon_steps"].astype(np.int64)).astype(np.uint32), file["lexicon_codes"])
        return Model(index, rows, file["transitions"].astype(np.float32), lexicon)


@lru_cache(maxsize=1)
def default_tagger() -> Tagger:
    """The tagger that ships with the package."""
    return Tagger(load_model())


class Tagger:
    """Labels the tokens of texts; keeps a table of the words that it met."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._reset()

    def _reset(self) -> None:
        self.words = Words(self.model.lexicon)
        self._tables = {group: np.zeros((1024, len(LABELS)), np.float32) for group in GROUPS}

    def probabilities(self, texts: Sequence[str]) -> tuple[Tokens, np.ndarray]:
        """The tokens of the texts and the probability of each label: float32 of shape (num_tokens, labels).

        What stands there many times ("thank you", a page of dashes) is looked at once.
        """
        with _TABLE:
            if self.words.count > MOST_WORDS:
                self._reset()
            tokens = Tokens(texts, self.words)
            self._add_rows()
            chosen, places = distinct_sequences(tokens)
            some = tokens.take(chosen)
            scores = self.scores(some)
        return tokens, label_probabilities(scores, some.sequences, self.model.transitions)[places]

    def is_common(self, word: str) -> bool:
        """Whether a word is often written in lower case: no name, or one that is a word too."""
        known = self.model.lexicon.code(word.lower())
        code = (known - 1) % 20
        return known > 0 and code % 4 >= 2 and code // 4 >= 1

    def scores(self, tokens: Tokens) -> np.ndarray:
        """The sum of the weights of each token's features: float32 of shape (num_tokens, labels)."""
        padded, places = pad_sequences(tokens, self.words)
        tables = self._tables
        scores = tables["0"][tokens.ids]
        for group, shift in SHIFTS.items():
            if shift:
                scores += tables[group][padded[places + shift]]
        for group, first, last in (("before", -BEFORE, 0), ("after", 1, AFTER + 1)):
            scores += window_sums(tables[group][tokens.ids], tokens.sequences, first, last)
        numbers = self.model.index[joint_buckets(tokens, self.words, padded, places)]
        for column in range(numbers.shape[1]):
            found = np.flatnonzero(numbers[:, column])
            scores[found] += self.model.rows[numbers[found, column]]
        return scores

    def _add_rows(self) -> None:
        """Rows of the words that are new."""
        words, first = self.words, self.words.forgotten
        if words.count > len(self._tables["0"]):
            size = max(words.count, 2 * len(self._tables["0"]))
            for group, table in self._tables.items():
                grown = np.zeros((size, len(LABELS)), np.float32)
                grown[: len(table)] = table
                self._tables[group] = grown
        if not words.features:
            return
        for group in GROUPS:
            lists = [features[group] for features in words.features]
            lengths = np.fromiter(map(len, lists), np.int64, len(lists))
            flat = np.fromiter((bucket for buckets in lists for bucket in buckets), np.int64, int(lengths.sum()))
            rows = self.model.rows[self.model.index[flat]]
            self._tables[group][first : words.count] = np.add.reduceat(rows, np.cumsum(lengths) - lengths, axis=0)
        words.forget_features()


def distinct_sequences(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of the sequences that differ, and where among them each token has its like."""
    seen = (tokens.ids << 3) | (tokens.glued.astype(np.int64) << 2) | tokens.mode  # all that a score depends on
    borders = [0, *(np.flatnonzero(np.diff(tokens.sequences)) + 1).tolist(), len(seen)]
    known: dict[bytes, int] = {}  # a sequence -> where its tokens begin among those chosen
    starts, is_new, size = [], [], 0
    for low, high in pairwise(borders):
        start = known.setdefault(seen[low:high].tobytes(), size)
        starts.append(start)
        is_new.append(start == size)
        size += high - low if start == size else 0
    lengths = np.diff(borders)
    places = np.arange(len(seen)) + np.repeat(np.array(starts, np.int64) - np.array(borders[:-1]), lengths)
    return np.flatnonzero(np.repeat(np.array(is_new, bool), lengths)), places


def window_sums(values: np.ndarray, sequences: np.ndarray, first: int, last: int) -> np.ndarray:
    """For each token the sum of ``values`` over the tokens ``first`` to ``last`` - 1 from it, in its own sequence."""
    if not len(values):
        return values
    positions = np.arange(len(values))
    borders = np.searchsorted(sequences, np.arange(int(sequences[-1]) + 2))
    low, high = borders[sequences], borders[sequences + 1]
    sums = np.zeros((len(values) + 1, values.shape[1]), np.float64)
    np.cumsum(values, axis=0, dtype=np.float64, out=sums[1:])
    start, end = np.clip(positions + first, low, high), np.clip(positions + last, low, high)
    return (sums[end] - sums[start]).astype(np.float32)


def label_probabilities(scores: np.ndarray, sequences: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Marginal probability of each label at each token: the forward-backward algorithm (Rabiner, 1989).

    ``scores`` (num_tokens, labels); ``sequences`` (num_tokens,) non-decreasing from 0; ``transitions`` from row to
    column. All in float32: each step is scaled to sum to one. A score of minus infinity forbids a label.
    """
    if not len(scores):
        return scores
    _, forward, backward = passes(scores, sequences, transitions)
    product = forward * backward
    product /= product.sum(axis=1, keepdims=True)
    return product


def passes(
    scores: np.ndarray, sequences: np.ndarray, transitions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``factors`` of each token, and what reaches it from before (with its own) and from after, up to a scale."""
    factors = np.exp(scores - scores.max(axis=1, keepdims=True))
    lengths = np.bincount(sequences)
    order = np.argsort(-lengths, kind="stable")
    first = (np.cumsum(lengths) - lengths)[order]
    active = np.searchsorted(-lengths[order], -np.arange(int(lengths.max())), side="left")
    matrix = np.exp(transitions)
    forward, backward = np.empty_like(factors), np.empty_like(factors)
    state = np.ones((len(lengths), factors.shape[1]), np.float32)
    for step, count in enumerate(active.tolist()):
        at = first[:count] + step
        state = factors[at] * (state[:count] @ matrix if step else state[:count])
        state /= state.sum(axis=1, keepdims=True)
        forward[at] = state
    state = np.ones((len(lengths), factors.shape[1]), np.float32)
    last = first + lengths[order] - 1
    for step, count in enumerate(active.tolist()):  # step tokens from the end
        at = last[:count] - step
        state = state[:count]
        backward[at] = state
        state = (factors[at] * state) @ matrix.T
        state /= state.sum(axis=1, keepdims=True)
    return factors, forward, backward
