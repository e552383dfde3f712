"""What still stands on both sides of a split: near-duplicate pairs, equal long replies, shared runs of 13 words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from ownchat.artifacts import SPLITS
from ownchat.clean.near import LEAST_ESTIMATE, SIMILAR, WORDS_ESTIMATE, Cache
from ownchat.clean.shingles import Folded, jaccard, ngrams, word_hashes
from ownchat.clean.signatures import sides
from ownchat.clean.sketches import Sketches, SketchWriter, candidates, estimates
from ownchat.clean.split import TRAIN, Links
from ownchat.clean.words import mix

RUN = 13  # words
FORM_SHARE = 0.01  # of the records that a run stands in when it is boilerplate
SAMPLE = 2_000  # records of valid and of test whose runs are looked for
_CHARS = 500_000


def leaks(
    train: Iterable[pa.RecordBatch], valid: Iterable[pa.RecordBatch], test: Iterable[pa.RecordBatch]
) -> dict[str, Any]:
    """Count what the splits share, from the records alone.

    ``near_pairs``: pairs in two splits with a Jaccard similarity of .8 or more, of 5-character shingles or of words;
    ``equal_replies``: different replies of eight words or more that stand in two splits; ``shared_runs``: for valid and
    test the share of (at most 2,000) records with a run of 13 words that stands in train, boilerplate left out.
    """
    with TemporaryDirectory() as folder:
        rows, replies, splits, count = [np.empty(0, np.int64)], [np.empty(0, np.uint64)], [], 0
        with SketchWriter(Path(folder)) as writer:
            for split, batches in enumerate((train, valid, test)):
                for batch in batches:
                    said = sides(batch)
                    writer.add(said.asked, said.answered)
                    rows.append(said.reply_rows + count)
                    replies.append(said.replies)
                    splits.append(np.full(len(batch), split))
                    count += len(batch)
        where = np.concatenate(splits) if splits else np.empty(0, np.int64)
        with Sketches([Path(folder)]) as sketches:
            return count_leaks(sketches, (np.concatenate(rows), np.concatenate(replies)), where)


def count_leaks(sketches: Sketches, replies: Links, splits: np.ndarray) -> dict[str, Any]:
    """The same from sketches; ``splits``: 0 train, 1 valid, 2 test, below 0 none; ``replies``: record and key."""
    return {
        "near_pairs": _near_pairs(sketches, splits),
        "equal_replies": _equal_replies(replies, splits),
        "shared_runs": _shared_runs(sketches, splits),
    }


# ---------------------------------------------------------------------------------------------------------------------


def _near_pairs(sketches: Sketches, splits: np.ndarray) -> int:
    cache, count = Cache(sketches), 0
    seen = np.zeros(1, np.uint64)  # keys of the pairs compared
    for words, least in ((False, LEAST_ESTIMATE), (True, WORDS_ESTIMATE)):
        for first, second in candidates(sketches, np.flatnonzero(splits >= 0), words=words):
            cross = splits[first] != splits[second]
            first, second = first[cross], second[cross]
            worth = estimates(sketches, first, second, words=words) >= least
            keys = (first[worth].astype(np.uint64) << np.uint64(32)) | second[worth].astype(np.uint64)
            keys = np.setdiff1d(keys, seen)
            seen = np.union1d(seen, keys)
            for key in keys.tolist():
                one, other = cache[key >> 32], cache[key & 0xFFFFFFFF]
                count += (
                    jaccard(one.words, other.words) >= SIMILAR or jaccard(one.characters, other.characters) >= SIMILAR
                )
    return count


def _equal_replies(replies: Links, splits: np.ndarray) -> int:
    rows, keys = replies
    rows, keys = rows[splits[rows] >= 0], keys[splits[rows] >= 0]
    pairs = np.unique(np.stack([keys, splits[rows].astype(np.uint64)], axis=1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())


def _shared_runs(sketches: Sketches, splits: np.ndarray) -> dict[str, float]:
    held = np.sort(np.concatenate([np.flatnonzero(splits == split)[:SAMPLE] for split in (1, 2)]))
    parts = [_once(rows, keys) for rows, keys in _in_parts(sketches, held)]
    rows = np.concatenate([rows for rows, _ in parts] or [np.empty(0, np.int64)])
    keys = np.concatenate([keys for _, keys in parts] or [np.empty(0, np.uint64)])
    wanted, places = np.unique(keys, return_inverse=True)
    records, in_train = np.bincount(places, minlength=len(wanted)), np.zeros(len(wanted), bool)
    for those, found in _in_parts(sketches, np.flatnonzero(splits == TRAIN) if len(wanted) else np.empty(0, np.int64)):
        place = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
        hit = wanted[place] == found
        place = np.searchsorted(wanted, _once(those[hit], found[hit])[1])
        in_train[place] = True
        records += np.bincount(place, minlength=len(wanted))
    telling = in_train & (records < max(2, FORM_SHARE * int((splits >= 0).sum())))
    sharing = np.zeros(len(splits), bool)
    sharing[rows[telling[places]]] = True
    return {
        name: round(float(sharing[mine].mean()), 4) if len(mine := held[splits[held] == split]) else 0.0
        for split, name in enumerate(SPLITS)
        if split != TRAIN
    }


def _once(rows: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of a record and a run once."""
    first = np.unique(keys ^ mix(rows.astype(np.uint64)), return_index=True)[1]
    return rows[first], keys[first]


def _in_parts(sketches: Sketches, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Records and the runs in them, some hundred records at a time."""
    held: list[str] = []
    start = chars = 0
    for place, index in enumerate(indices.tolist()):
        held.append(" ".join(sketches.texts(index)))
        chars += len(held[-1])
        if chars > _CHARS or place == len(indices) - 1:
            points = np.frombuffer("".join(held).encode("utf-32-le"), np.uint32)
            folded = Folded(points, np.concatenate([[0], np.cumsum([len(text) for text in held])]))
            keys, firsts = ngrams(*word_hashes(folded), RUN)
            yield indices[start + np.repeat(np.arange(len(held)), np.diff(firsts))], keys
            held, start, chars = [], place + 1, 0
