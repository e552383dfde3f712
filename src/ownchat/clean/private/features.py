"""What the tagger sees of a text: tokens, and hashed numbers in place of their words.

A word is looked at once: its spelling becomes a few bucket numbers (feature hashing, Weinberger et al., 2009), kept in
a cache. What a word adds to a place of the window is then one row of a table, so that a text costs a lookup for each
token and no Python. Digits are read as ``0`` before hashing: no number of a training text has a bucket of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np

NUM_BUCKETS = 1 << 20
LONGEST_WORD = 24  # characters that are looked at; a longer run of letters or digits is known by its length class
SEQUENCE = 96  # tokens that are labelled together; longer texts are cut after a sentence where there is one
PAD = 3  # words beyond the edges that the window reaches

# Every character belongs to exactly one token, so that lengths alone give the offsets. Repeated marks are one token:
# a page of dashes is not a million words.
TOKEN = re.compile(r"\w+|\n\s*|[^\S\n]+|\.+|-+|=+|\*+|#+|!+|\?+|~+|[^\w\s]")

# Kinds of word, and kinds of text by case: an upper-case letter says nothing where all or no letters are.
LOWER, TITLE, UPPER, INITIAL, MIXED, NUMBER, CODE_LOWER, CODE_UPPER, OTHER_SCRIPT, MARK, LINE, EDGE = range(12)
NUM_SHAPES = 12
CASED, NO_CASE, ALL_CAPITALS = range(3)

GROUPS = ("0", "-1", "+1", "-2", "+2", "-3", "+3", "before", "after")  # places of the window that a word can stand in
SHIFTS = {"0": 0, "-1": -1, "+1": 1, "-2": -2, "+2": 2, "-3": -3, "+3": 3}
BEFORE, AFTER = 6, 4  # tokens of the bags of words before and after
_DIGIT = re.compile(r"\d")
_RUNS = re.compile(r"([^\W\d_])+|(\d)+|_+")


def bucket(feature: str) -> int:
    """The number of a feature."""
    return crc32(feature.encode("utf-8", "surrogatepass")) & (NUM_BUCKETS - 1)


def shape_of(word: str) -> int:
    """The kind of a token: one of the constants above."""
    if word[0] == "\n":
        return LINE
    if word.isdigit():
        return NUMBER
    if word.isalpha():
        if word.islower():
            return LOWER
        if word.isupper():
            return UPPER if len(word) > 1 else INITIAL
        if word.istitle():
            return TITLE
        return MIXED if word.lower() != word.upper() else OTHER_SCRIPT
    if word[0].isalnum() or word[0] == "_":
        return CODE_UPPER if word[:LONGEST_WORD].isupper() else CODE_LOWER
    return MARK


def normalise(word: str) -> str:
    """A word as it is hashed: lower case, digits as ``0``, cut to :data:`LONGEST_WORD`.

    >>> normalise("AB123x")
    'ab000x'
    """
    if word[0] == "\n":
        return "\n\n" if word.count("\n") > 1 else "\n"
    return _DIGIT.sub("0", word[:LONGEST_WORD].lower())


def runs(word: str) -> str:
    """Letters and digits of a word as runs with their lengths: ``A2-1234x`` is cut into tokens before this.

    >>> runs("ab1234c")
    'a2d4a1'
    """
    parts = []
    for match in _RUNS.finditer(word[:LONGEST_WORD]):
        kind = "a" if match[1] else "d" if match[2] else "_"
        parts.append(f"{kind}{match.end() - match.start()}")
    return "".join(parts[:5]) + ("+" if len(word) > LONGEST_WORD else "")


def word_features(word: str, norm: str, shape: int, lexicon: int) -> dict[str, list[int]]:
    """The buckets of one word for each place of the window; ``lexicon`` is its code there (0: not in it)."""
    coarse = coarse_code(norm, word, shape, lexicon)
    own = [f"w={norm}", f"k={coarse}", f"n={min(len(word), 20)}"]
    near, far = [f"w={norm}", f"k={coarse}"], [f"w={norm}", f"k={coarse}"]
    if shape in (NUMBER, CODE_LOWER, CODE_UPPER):
        pattern = runs(word)
        own += [f"r={pattern}", f"d={sum(map(str.isdigit, word[:LONGEST_WORD]))}", f"0={word[0] == '0'}"]
        near.append(f"r={pattern}")
    if shape not in (NUMBER, MARK, LINE):
        own += [f"p={norm[:size]}" for size in (1, 2, 3) if len(norm) > size]
        own += [f"s={norm[-size:]}" for size in (1, 2, 3, 4) if len(norm) > size]
        edged = f"^{norm}$"
        own += [f"c={edged[start : start + 3]}" for start in range(len(edged) - 2)]
        near += [f"s={norm[-3:]}", f"p={norm[:2]}"]
        own += [f"s3k={norm[-3:]}{lexicon}", f"nk={min(len(word), 9)}{lexicon}"]
    by_group = {"0": own, "-1": near, "+1": near, "-2": far, "+2": far, "-3": far[:1], "+3": far[:1]}
    by_group |= {"before": far[:1], "after": far[:1]}
    return {group: [bucket(f"{group}|{feature}") for feature in features] for group, features in by_group.items()}


def coarse_code(norm: str, word: str, shape: int, lexicon: int) -> str:
    """A word's kind where its spelling is too fine: how common it is, the number of its digits, or the mark itself."""
    if shape in (MARK, LINE):
        return norm[:2]
    if shape == NUMBER:
        return f"N{min(len(word), 17)}"
    if shape in (CODE_LOWER, CODE_UPPER):
        return f"C{min(len(word), 12)}"
    return f"L{lexicon}"


class Words(dict[str, int]):
    """Token to a small number; what is new is looked at once. White space has the number -1.

    ``shapes``, ``hashes`` (of the word), ``kinds`` (hash of the coarse code) and ``stops`` (ends a sentence) are
    arrays by that number; ``features`` holds the buckets of words from number ``forgotten`` on.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        super().__init__()
        self.lexicon = lexicon
        self.features: list[dict[str, list[int]]] = []
        self.forgotten = 0
        self.count = 0
        self.shapes, self.stops = np.empty(1024, np.int64), np.empty(1024, bool)
        self.hashes, self.kinds = np.empty(1024, np.uint64), np.empty(1024, np.uint64)
        edge = {group: [bucket(f"{group}|edge")] for group in GROUPS}
        self.edge = self._add("\x00edge", EDGE, edge, "\x00edge", "\x00edge")

    def __missing__(self, word: str) -> int:
        if word[0] != "\n" and word.isspace():
            self[word] = -1
            return -1
        shape, norm = shape_of(word), normalise(word)
        lexicon = self.lexicon.code(norm) if shape not in (MARK, LINE, NUMBER) else 0
        features = word_features(word, norm, shape, lexicon)
        return self._add(word, shape, features, norm, coarse_code(norm, word, shape, lexicon))

    def forget_features(self) -> None:
        """Drop the buckets of the words so far: their rows have been added up."""
        self.forgotten, self.features = self.count, []

    def _add(self, word: str, shape: int, features: dict[str, list[int]], norm: str, coarse: str) -> int:
        number = self.count
        if number == len(self.shapes):
            for name in ("shapes", "stops", "hashes", "kinds"):
                setattr(self, name, np.concatenate([getattr(self, name)] * 2))
        self.shapes[number] = shape
        self.stops[number] = word[0] in ".?!\n\x00"
        self.hashes[number] = crc32(norm.encode("utf-8", "surrogatepass"))
        self.kinds[number] = crc32(coarse.encode("utf-8", "surrogatepass"))
        self.features.append(features)
        self[word] = number
        self.count += 1
        return number


class Lexicon:
    """How common a word is, in general text, with a lower-case letter; and whether it is a given name.

    Holds hashes of 32 bits and a code for each, never a word.
    """

    def __init__(self, hashes: np.ndarray, codes: np.ndarray) -> None:
        self.hashes, self.codes = hashes, codes

    def code(self, norm: str) -> int:
        """0 for a word that is not known, else 1 to 255."""
        if not len(self.hashes):
            return 0
        wanted = np.uint32(crc32(norm.encode("utf-8", "surrogatepass")))
        index = int(np.searchsorted(self.hashes, wanted))
        return int(self.codes[index]) if index < len(self.hashes) and self.hashes[index] == wanted else 0


class Tokens:
    """The tokens of some texts: flat arrays of one entry for each token, white space left out.

    ``ids`` in :class:`Words`, ``starts`` and ``ends`` in code points of the token's own text, ``texts`` its number,
    ``glued`` (no space before it), ``sequence`` numbers, and ``mode`` (kind of text by case).
    """

    def __init__(self, texts: Sequence[str], words: Words) -> None:
        parts = [TOKEN.findall(text) for text in texts]
        counts = np.fromiter(map(len, parts), np.int64, len(parts))
        flat = [token for part in parts for token in part]
        ids = np.fromiter(map(words.__getitem__, flat), np.int64, len(flat))
        lengths = np.fromiter(map(len, flat), np.int64, len(flat))
        number = np.repeat(np.arange(len(parts)), counts)
        ends = np.cumsum(lengths)
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        base = np.cumsum(sizes) - sizes
        starts = ends - lengths - base[number]
        real = ids >= 0
        glued = np.concatenate([[False], real[:-1]]) & (starts > 0)
        self.ids, self.starts, self.lengths = ids[real], starts[real], lengths[real]
        self.ends, self.texts, self.glued = self.starts + self.lengths, number[real], glued[real]
        self.shapes = words.shapes[self.ids]
        self.stops = words.stops[self.ids]
        self.mode = _modes(self.shapes, self.texts, len(texts))[self.texts]
        self.sequences = _sequences(self.texts, self.stops)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: np.ndarray) -> Tokens:
        """Some of the tokens, whole sequences of them, numbered anew."""
        some = object.__new__(Tokens)
        for name, values in vars(self).items():
            setattr(some, name, values[chosen])
        some.sequences = np.cumsum(np.diff(some.sequences, prepend=-1) > 0) - 1
        return some


def _modes(shapes: np.ndarray, texts: np.ndarray, num_texts: int) -> np.ndarray:
    lower = np.bincount(texts[shapes == LOWER], minlength=num_texts)
    title = np.bincount(texts[np.isin(shapes, (TITLE, MIXED))], minlength=num_texts)
    upper = np.bincount(texts[shapes == UPPER], minlength=num_texts)
    modes = np.full(num_texts, CASED)
    modes[(title + upper) * 40 <= lower] = NO_CASE
    modes[(upper > 2 * (lower + title)) & (upper > 1)] = ALL_CAPITALS
    return modes


def _sequences(texts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """The sequence of each token. A text longer than :data:`SEQUENCE` is cut after the last end of a sentence."""
    if not len(texts):
        return np.empty(0, np.int64)
    borders = np.flatnonzero(np.diff(texts)) + 1
    first = np.concatenate([[0], borders])
    last = np.concatenate([borders, [len(texts)]])
    cuts: list[int] = []
    for start, end in zip(first.tolist(), last.tolist(), strict=True):
        cuts.append(start)
        while end - start > SEQUENCE:
            # a full stop glued between letters or digits is not special here: any place will do, a stop is better
            halts = np.flatnonzero(stops[start + SEQUENCE // 2 : start + SEQUENCE - 1])
            start += SEQUENCE // 2 + int(halts[-1]) + 1 if len(halts) else SEQUENCE
            cuts.append(start)
    marks = np.zeros(len(texts), np.int64)
    marks[cuts] = 1
    return np.cumsum(marks) - 1


def pad_sequences(tokens: Tokens, words: Words) -> tuple[np.ndarray, np.ndarray]:
    """The ids with :data:`PAD` edges on both sides of each sequence, and where in that array each token stands."""
    sequences = tokens.sequences
    num = int(sequences[-1]) + 1 if len(sequences) else 0
    places = np.arange(len(tokens)) + 2 * PAD * sequences + PAD
    padded = np.full(len(tokens) + 2 * PAD * num, words.edge, np.int64)
    padded[places] = tokens.ids
    return padded, places


_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)


def _mix(salt: int, *parts: np.ndarray) -> np.ndarray:
    value = np.full(len(parts[0]), salt * 0x27D4EB2F & 0xFFFFFFFF, np.uint64)
    for part, multiplier in zip(parts, _MULTIPLIERS, strict=False):
        value = (value ^ part.astype(np.uint64)) * np.uint64(multiplier) & np.uint64(0xFFFFFFFF)
        value ^= value >> np.uint64(15)
    return (value & np.uint64(NUM_BUCKETS - 1)).astype(np.int64)


def joint_buckets(tokens: Tokens, words: Words, padded: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Buckets of pairs and triples of words, of case, glue and length: integers of shape (num_tokens, 14)."""
    hashes = words.hashes[padded]
    kinds = words.kinds[padded]
    shapes = words.shapes[padded]
    at = {shift: places + shift for shift in range(-3, 4)}
    starts = words.stops[padded][at[-1]]  # after a full stop, a line's end or the edge
    case = tokens.mode * 64 + starts * 32
    lengths = np.bincount(tokens.sequences)[tokens.sequences] if len(tokens) else np.empty(0, np.int64)
    short = np.minimum(lengths, 8)
    columns = [
        _mix(1, hashes[at[-1]], hashes[at[0]]),
        _mix(2, hashes[at[0]], hashes[at[1]]),
        _mix(3, hashes[at[-2]], hashes[at[-1]]),
        _mix(4, hashes[at[1]], hashes[at[2]]),
        _mix(5, kinds[at[-1]], kinds[at[0]], kinds[at[1]]),
        _mix(6, hashes[at[-1]], kinds[at[0]]),
        _mix(7, kinds[at[0]], hashes[at[1]]),
        _mix(8, hashes[at[-2]], kinds[at[0]]),
        _mix(9, case + shapes[at[0]], np.zeros(len(places), np.int64)),
        _mix(10, case + shapes[at[0]], shapes[at[-1]], shapes[at[1]]),
        _mix(11, case + shapes[at[0]], kinds[at[0]]),
        _mix(12, tokens.glued, kinds[at[0]], kinds[at[-1]]),
        _mix(13, short, kinds[at[0]]),
        _mix(14, case + shapes[at[0]], hashes[at[-1]]),
    ]
    return np.stack(columns, axis=1)
