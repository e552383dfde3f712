"""Words of many texts at once, as numbers: where each begins, how long it is, and a hash of it.

What per-word Python does at a third of a megabyte a second, numpy does on bytes at tens of them. Punctuation marks are
words of their own, clitics too ("don't" is two), as in the tokenisers that the published quality rules were used with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SPACE, _MARK, _WORD = 0, 1, 2
_PRIME = 0x100000001B3  # odd, so that powers of it have inverses modulo 2**64

_CLASS = np.full(256, _WORD, np.uint8)
_CLASS[:33] = _SPACE
_CLASS[127] = _SPACE
_CLASS[[byte for byte in range(33, 127) if not chr(byte).isalnum()]] = _MARK
_LETTER = np.zeros(256, bool)
_LETTER[[byte for byte in range(256) if byte >= 128 or chr(byte).isalpha()]] = True
_UPPER = np.zeros(256, bool)
_UPPER[65:91] = True
_CLITIC = np.zeros(256, bool)  # first letters of 's, 't, 're, 'll, 've and 'm
_CLITIC[[ord(letter) for letter in "strlvmSTRLVM"]] = True
_CLOSING = frozenset(b".,;:!?)]}>\"'")
_DIGIT = np.zeros(256, bool)
_DIGIT[48:58] = True


@dataclass(frozen=True)
class Words:
    """The words of some texts in order; ``rows`` says which text each belongs to."""

    rows: np.ndarray  # (n,) text of each word
    hashes: np.ndarray  # (n,) uint64: equal words have equal hashes
    chars: np.ndarray  # (n,) length in characters
    is_mark: np.ndarray  # (n,) punctuation or a symbol, no letter or digit
    has_letter: np.ndarray  # (n,)
    starts: np.ndarray  # (num_texts + 1,) index of each text's first word

    def count(self) -> np.ndarray:
        """Words of each text."""
        return np.diff(self.starts)

    def of(self, texts: np.ndarray) -> Words:
        """The words of some of the texts alone (indices in ascending order)."""
        kept = np.zeros(len(self.starts) - 1, bool)
        kept[texts] = True
        where = np.flatnonzero(kept[self.rows])
        return Words(
            rows=(np.cumsum(kept) - 1)[self.rows[where]],
            hashes=self.hashes[where],
            chars=self.chars[where],
            is_mark=self.is_mark[where],
            has_letter=self.has_letter[where],
            starts=np.concatenate([[0], np.cumsum(self.count()[texts])]),
        )

    def sum(self, values: np.ndarray) -> np.ndarray:
        """``values`` (one a word) summed over each text."""
        return np.diff(np.concatenate([[0], np.cumsum(values)])[self.starts])


def split_words(texts: list[str]) -> Words:
    """The words of ``texts``; about eighty bytes of memory for each byte of text, so give it a few megabytes at most.

    >>> words = split_words(["It isn't 3.5, is it?", ""])
    >>> words.count().tolist(), words.chars.tolist()
    ([8, 0], [2, 3, 2, 3, 1, 2, 2, 1])
    """
    encoded = [text.encode("utf-8", "replace") for text in texts]
    data = np.frombuffer(b"\0".join(encoded) + b"\0", np.uint8)
    ends = np.cumsum([len(text) + 1 for text in encoded]) if encoded else np.empty(0, np.int64)
    kind = _classes(data)
    first = _first_bytes(data, kind)
    begins = np.flatnonzero(first)
    spaces = np.flatnonzero(kind == _SPACE)
    # A word ends where the next one begins or at the next space, whichever comes first.
    following = np.append(begins[1:], len(data))
    stops = np.minimum(following, spaces[np.searchsorted(spaces, begins)] if len(begins) else following[:0])
    prefix = np.cumsum(data.astype(np.uint64) * _powers(len(data)), dtype=np.uint64)
    prefix = np.concatenate([np.zeros(1, np.uint64), prefix])
    hashes = mix((prefix[stops] - prefix[begins]) * _inverse_powers(len(data))[begins])
    chars = np.concatenate([[0], np.cumsum((data & 0xC0) != 0x80)])
    letters = np.concatenate([[0], np.cumsum(_LETTER[data] & (kind == _WORD))])
    rows = np.searchsorted(ends, begins, side="right")
    return Words(
        rows=rows,
        hashes=hashes,
        chars=chars[stops] - chars[begins],
        is_mark=kind[begins] == _MARK,
        has_letter=letters[stops] > letters[begins],
        starts=np.searchsorted(rows, np.arange(len(texts) + 1)),
    )


def hash_words(words: list[str]) -> np.ndarray:
    """The hashes that :func:`split_words` gives to these words."""
    return split_words(["\n".join(words)]).hashes


def ngrams(words: Words, size: int, *, hashed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Index of the first word of each n-gram within a text, and a hash of it (zeros where none is wanted).

    >>> starts, hashes = ngrams(split_words(["a b a b", "a b"]), 2)
    >>> starts.tolist(), (hashes[0] == hashes[[2, 3]]).tolist()
    ([0, 1, 2, 4], [True, True])
    """
    count = max(0, len(words.rows) - size + 1)
    begins = np.flatnonzero(words.rows[:count] == words.rows[size - 1 :]) if count else np.empty(0, np.int64)
    hashes = np.zeros(len(begins), np.uint64)
    for place in range(size if hashed else 0):
        hashes = mix(hashes * np.uint64(_PRIME) + words.hashes[begins + place])
    return begins, hashes


def mix(hashes: np.ndarray) -> np.ndarray:
    """Spread the bits of 64-bit hashes (the finaliser of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


# ---------------------------------------------------------------------------------------------------------------------


def _classes(data: np.ndarray) -> np.ndarray:
    """Space, mark or word for each byte; what joins a word ("3.5", "e.g.", "a_b") belongs to it."""
    kind = _CLASS[data]
    before, after = np.roll(data, 1), np.roll(data, -1)
    is_word = kind == _WORD
    both = np.roll(is_word, 1) & np.roll(is_word, -1)
    digits = _DIGIT[before] & _DIGIT[after]
    dot = data == ord(".")
    joins = (dot & ~(_UPPER[after] & _LETTER[before] & ~_UPPER[before])) | (data == ord("_")) | (data == ord("@"))
    joins |= (data == ord("'")) | (((data == ord(",")) | (data == ord(":"))) & digits)
    joins |= (data == ord("&")) | ((data == ord("-")) & (_LETTER[before] ^ _LETTER[after]))
    joins &= both
    # "U.S." and "J. Smith" keep their last dot.
    earlier = np.roll(data, 2)
    joins |= dot & _LETTER[before] & ((earlier == ord(".")) | (_UPPER[before] & ~np.roll(is_word, 2)))
    high = np.flatnonzero(data >= 0xC2)
    if len(high):
        _mark_unicode(data, kind, high)
    kind[joins] = _WORD
    _join_addresses(data, kind)
    return kind


def _join_addresses(data: np.ndarray, kind: np.ndarray) -> None:
    """A web address is one word, from its scheme to the next space, without the marks that end a sentence there."""
    colons = np.flatnonzero(data[:-2] == ord(":"))
    colons = colons[(data[colons + 1] == ord("/")) & (data[colons + 2] == ord("/"))]
    if not len(colons):
        return
    spaces = np.flatnonzero(kind == _SPACE)
    for start, end in zip(colons.tolist(), spaces[np.searchsorted(spaces, colons)].tolist(), strict=True):
        while end > start and data[end - 1] in _CLOSING:
            end -= 1
        kind[start:end] = _WORD


def _mark_unicode(data: np.ndarray, kind: np.ndarray, high: np.ndarray) -> None:
    """Spaces and punctuation beyond ASCII, by the first bytes of their UTF-8 form."""
    lead, second = data[high], data[high + 1]
    latin = high[(lead == 0xC2) & (second < 0xC0)]
    kind[latin] = kind[latin + 1] = _MARK
    blank = latin[data[latin + 1] == 0xA0]
    kind[blank] = kind[blank + 1] = _SPACE
    three = high[high + 2 < len(data)]
    lead, second, third = data[three], data[three + 1], data[three + 2]
    general = (lead == 0xE2) & (second == 0x80)
    marks = (general & (third >= 0x90)) | ((lead == 0xE2) & (second == 0x81) & (third < 0xA0))
    marks |= (lead == 0xE3) & (second == 0x80) & (third < 0xA0)
    marks |= (lead == 0xEF) & (second == 0xBC) & ((third <= 0x8F) | (third >= 0x9A)) & (third < 0xA1)
    spaces = (general & ((third <= 0x8B) | (third == 0xAF))) | ((lead == 0xE3) & (second == 0x80) & (third == 0x80))
    for found, value in ((marks, _MARK), (spaces, _SPACE)):
        places = three[found]
        kind[places] = kind[places + 1] = kind[places + 2] = value
    # A typographic apostrophe between letters joins, as the straight one does.
    apostrophe = three[general & (third == 0x99)]
    apostrophe = apostrophe[(apostrophe > 0) & (apostrophe + 3 < len(data))]
    inside = apostrophe[_LETTER[data[apostrophe - 1]] & _LETTER[data[apostrophe + 3]]]
    kind[inside] = kind[inside + 1] = kind[inside + 2] = _WORD


def _first_bytes(data: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Which bytes begin a word."""
    previous = np.concatenate([np.zeros(1, np.uint8), data[:-1]])
    previous_kind = np.concatenate([np.zeros(1, np.uint8), kind[:-1]])
    first = (kind == _WORD) & (previous_kind != _WORD)
    same_run = (data == previous) & ((data == ord(".")) | (data == ord("-")))  # "..." is one mark
    lead = (data & 0xC0) != 0x80  # a mark beyond ASCII has more bytes than one
    first |= (kind == _MARK) & lead & ~same_run
    first |= (kind == _WORD) & (data == ord("'")) & _CLITIC[np.roll(data, -1)]
    place = np.flatnonzero((data[:-3] == 0xE2) & (data[1:-2] == 0x80) & (data[2:-1] == 0x99) & _CLITIC[data[3:]])
    first[place] |= kind[place] == _WORD
    return first


_POWERS: dict[int, np.ndarray] = {}  # of the hash's base and of its inverse, as long as the longest text so far


def _powers(length: int, base: int = _PRIME) -> np.ndarray:
    if len(_POWERS.get(base, ())) < length:
        steps = np.full(max(length, 1 << 16), base, np.uint64)
        steps[0] = 1
        _POWERS[base] = np.cumprod(steps, dtype=np.uint64)
    return _POWERS[base][:length]


def _inverse_powers(length: int) -> np.ndarray:
    return _powers(length, pow(_PRIME, -1, 1 << 64))
