"""MinHash sketches of records in files: what near duplicates are looked for in, with little of it in memory.

MinHash (Broder 1997) over runs of five characters, 128 hashes in 32 bands of 4: a pair of Jaccard similarity .8 is a
candidate with probability 1 - 1e-7, of .6 with .99, of .3 with .23. And over words, for what says the same words in
another order and for short text, in which one word changes many runs: 80 hashes in 20 bands of 4, so that a pair whose
sets of words have a similarity of .8 is a candidate with probability 1 - 3e-5, of .6 with .94, of .3 with .15.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import rensa

from ownchat.clean.shingles import (
    Folded,
    gather,
    interleave,
    ngrams,
    part,
    pieces,
    shingles,
    whole,
    without_runs,
    word_hashes,
)
from ownchat.clean.signatures import Order, in_order
from ownchat.clean.words import mix

LAYOUT = 2  # of what is written here, and of the hashes in it: a killed run goes on with its own only
FORM_RUN, FORM_SHARE = 13, 0.01  # words in a row that stand in 1 % of the records are a form: an instruction, a footer
OWN_SHARE = 0.1  # of a record that is no form; where it is less, the record is taken as it is
FORM_SAMPLE = 4_000  # records from which forms are learned

HASHES, BANDS = 128, 32  # of runs of characters
WORD_HASHES, WORD_BANDS = 80, 20
WINDOW = 64  # neighbours that each record of a crowded band is compared with
WORD_WINDOW = 16  # the same for bands of words: texts of one subject share many
_PAIRS = 200_000  # candidates held at a time


class SketchWriter:
    """Writes the folded texts, MinHashes and band keys of records into a folder, batch after batch."""

    def __init__(self, folder: Path, forms: np.ndarray | None = None) -> None:
        self.folder, self._forms = folder, forms
        folder.mkdir(parents=True, exist_ok=True)
        names = ("texts", "own", "minhashes", "words")
        self._files = {name: open(folder / f"{name}.bin", "wb") for name in names}  # noqa: SIM115
        self._lengths: dict[str, list[np.ndarray]] = {"texts": [], "own": []}
        self._bands: list[np.ndarray] = []

    def add(self, asked: Folded, answered: Folded) -> None:
        """One batch: what each record asks (or its document's text), and what is answered."""
        both = interleave(asked, answered)
        self._store("texts", both)
        self._store("own", own_parts(both, self._forms))
        text = whole(asked, answered)
        for start, end in pieces(text):
            piece = part(text, start, end)
            keys = []
            for name, bands, minhashes in (
                ("minhashes", BANDS, _minhashes(*shingles(piece), HASHES)),
                ("words", WORD_BANDS, _minhashes(*word_hashes(piece), WORD_HASHES)),
            ):
                self._files[name].write(mix(minhashes.astype(np.uint64)).astype(np.uint8).tobytes())
                keys.append(_band_keys(minhashes, bands))
            self._bands.append(np.concatenate(keys))

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        bands = np.concatenate(self._bands, axis=1) if self._bands else np.empty((BANDS + WORD_BANDS, 0), np.uint64)
        np.save(self.folder / "bands.npy", bands)
        for name, lengths in self._lengths.items():
            np.save(self.folder / f"{name}.npy", np.concatenate([np.empty((0, 2), np.uint32), *lengths]))

    def _store(self, name: str, parts: Folded) -> None:
        """Two texts of each record, as UTF-8."""
        size = np.ones(len(parts.points), np.int64)
        for least in (0x80, 0x800, 0x10000):
            size += parts.points >= least
        ends = np.concatenate([[0], np.cumsum(size)])[parts.starts]
        self._lengths[name].append(np.diff(ends).reshape(-1, 2).astype(np.uint32))
        self._files[name].write(parts.points.tobytes().decode("utf-32-le").encode())

    def __enter__(self) -> SketchWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sketches:
    """The sketches of several folders, numbered through; only lengths stay in memory."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = list(folders)
        self._lengths: dict[str, np.ndarray] = {}
        self._places: dict[str, np.ndarray] = {}
        for name in ("texts", "own"):
            lengths = [np.load(folder / f"{name}.npy") for folder in folders]
            sizes = [one.sum(axis=1, dtype=np.int64) for one in lengths]
            self._lengths[name] = np.concatenate([np.empty((0, 2), np.uint32), *lengths])
            self._places[name] = np.concatenate([np.empty(0, np.int64), *(np.cumsum(one) - one for one in sizes)])
            self._firsts = np.concatenate([[0], np.cumsum([len(one) for one in lengths])]).astype(np.int64)
        self.lengths = self._lengths["texts"].sum(axis=1, dtype=np.int64)  # (n,) bytes
        self._files: dict[tuple[str, int], BinaryIO] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def __enter__(self) -> Sketches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def band(self, number: int) -> np.ndarray:
        """The key of every record in one band, those of words last; 0 for a record without text."""
        return np.concatenate([np.load(f / "bands.npy", mmap_mode="r")[number] for f in self._folders] or [[]])

    def minhashes(self, indices: np.ndarray, *, words: bool = False) -> np.ndarray:
        """The MinHashes of some records, a byte each: ``(len(indices), 128)``, or 80 of words."""
        name, width = ("words", WORD_HASHES) if words else ("minhashes", HASHES)
        found = np.empty((len(indices), width), np.uint8)
        shard = np.searchsorted(self._firsts, indices, side="right") - 1
        for number in np.flatnonzero(np.bincount(shard, minlength=len(self._folders))).tolist():
            rows = np.flatnonzero(shard == number)
            stored = np.memmap(self._folders[number] / f"{name}.bin", np.uint8, "r").reshape(-1, width)
            found[rows] = stored[indices[rows] - self._firsts[number]]
        return found

    def texts(self, index: int, name: Literal["texts", "own"] = "texts") -> tuple[str, str]:
        """What a record asks and what it answers, folded; ``own``: without forms, empty where they are little."""
        asked, answered = self._lengths[name][index].tolist()
        if not asked + answered:
            return "", ""
        number = int(np.searchsorted(self._firsts, index, side="right")) - 1
        if (name, number) not in self._files:
            self._files[name, number] = open(self._folders[number] / f"{name}.bin", "rb")  # noqa: SIM115
        data = os.pread(self._files[name, number].fileno(), asked + answered, int(self._places[name][index]))
        return data[:asked].decode(), data[asked:].decode()


def learn_forms(texts: Iterable[Folded]) -> np.ndarray:
    """Keys of the runs of 13 words that stand in 1 % of the texts, and in ten at least: instructions, stock replies."""
    found = [np.empty(0, np.uint64)]
    count = 0
    for folded in texts:
        count += len(folded)
        for start, end in pieces(folded):
            keys, firsts = ngrams(*word_hashes(part(folded, start, end)), FORM_RUN)
            rows = mix(np.repeat(np.arange(end - start, dtype=np.uint64), np.diff(firsts)))
            found.append(keys[np.unique(keys ^ rows, return_index=True)[1]])  # once for each record
    keys, counts = np.unique(np.concatenate(found), return_counts=True)
    return keys[counts >= max(10, FORM_SHARE * count)]


def own_parts(both: Folded, forms: np.ndarray | None) -> Folded:
    """Of two texts for each record what is no form; nothing where a record has no form, or hardly anything else."""
    count = len(both)
    nothing = Folded(np.empty(0, np.uint32), np.zeros(count + 1, np.int64))
    if forms is None or not len(forms) or not count:
        return nothing
    left = without_runs(both, forms, FORM_RUN)
    before, after = (one.lengths().reshape(-1, 2).sum(axis=1) for one in (both, left))
    chosen = np.flatnonzero(np.repeat((after < before) & (after >= OWN_SHARE * before), 2))
    return gather(left, chosen, chosen, count)


def candidates(
    sketches: Sketches, members: np.ndarray, in_order: Order = in_order, *, words: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs ``(first < second)`` that share a band of characters or of words, band by band, in parts of bounded size.

    In a band that more than 64 records share (of words: 16) each is paired with as many that come next in order of
    another band.
    """
    bands, window = (range(BANDS, BANDS + WORD_BANDS), WORD_WINDOW) if words else (range(BANDS), WINDOW)
    keys = sketches.band(bands[-1])[members]
    for number in bands:
        other, keys = keys, sketches.band(number)[members]
        order = in_order(keys, other)
        ordered = keys[order]
        alive = np.flatnonzero(ordered != 0)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for distance in range(1, window + 1):
            alive = alive[alive + distance < len(ordered)]
            alive = alive[ordered[alive] == ordered[alive + distance]]
            found.append((members[order[alive]], members[order[alive + distance]]))
            if not len(alive) or sum(len(one) for one, _ in found) > _PAIRS or distance == window:
                one, two = (np.concatenate(side) for side in zip(*found, strict=True))
                found = []
                yield np.minimum(one, two), np.maximum(one, two)
            if not len(alive):
                break


def estimates(sketches: Sketches, first: np.ndarray, second: np.ndarray, *, words: bool = False) -> np.ndarray:
    """The Jaccard similarity of pairs as their MinHashes estimate it, give or take .04 (.05 of words)."""
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), 50_000):
        places = slice(start, start + 50_000)
        one, two = (sketches.minhashes(side[places], words=words) for side in (first, second))
        found[places] = (one == two).mean(axis=1)
    return found


# ---------------------------------------------------------------------------------------------------------------------


def _minhashes(hashes: np.ndarray, starts: np.ndarray, count: int) -> np.ndarray:
    """``(num_texts, count)`` uint32 of the tokens of each text."""
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts, count, 0)
    return np.array(matrix.to_rows(), np.uint32).reshape(-1, count)


def _band_keys(minhashes: np.ndarray, bands: int) -> np.ndarray:
    """``(bands, num_texts)``: one key for four hashes; 0 for a text without tokens."""
    rows = minhashes.reshape(len(minhashes), bands, minhashes.shape[1] // bands).astype(np.uint64)
    keys = np.zeros(rows.shape[:2], np.uint64)
    for place in range(rows.shape[2]):
        keys = mix(keys + rows[:, :, place] + np.uint64(1))
    empty = (minhashes == np.uint32(0xFFFFFFFF)).all(axis=1)
    keys[empty] = 0
    return np.ascontiguousarray(keys.T)
